/* The one way a failed system call reaches JavaScript. */
#include "addon.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The names are spelled out because `strerrorname_np` is glibc 2.32 and later only. */
static const char *error_name(int error) {
  switch (error) {
#define NAME(e) case e: return #e
    NAME(EPERM); NAME(ENOENT); NAME(EINTR); NAME(EIO); NAME(ENXIO); NAME(E2BIG); NAME(EBADF); NAME(EAGAIN);
    NAME(ENOMEM); NAME(EACCES); NAME(EFAULT); NAME(EBUSY); NAME(EEXIST); NAME(ENODEV); NAME(ENOTDIR); NAME(EINVAL);
    NAME(ENFILE); NAME(EMFILE); NAME(ENOSPC); NAME(ERANGE); NAME(ENAMETOOLONG); NAME(ENOSYS); NAME(ENOTSOCK);
    NAME(EMSGSIZE); NAME(EPROTOTYPE); NAME(ENOPROTOOPT); NAME(EPROTONOSUPPORT); NAME(EOPNOTSUPP); NAME(EAFNOSUPPORT);
    NAME(EADDRINUSE); NAME(EADDRNOTAVAIL); NAME(ENETDOWN); NAME(ENETUNREACH); NAME(ENOBUFS); NAME(ENOTCONN);
    NAME(ECONNREFUSED); NAME(ETIMEDOUT); NAME(EOVERFLOW); NAME(ESRCH); NAME(ENOLINK);
#undef NAME
    default: return NULL;
  }
}

napi_value throw_errno(napi_env env, int error, const char *syscall, const struct hint *hints, const char *format, ...) {
  char what[256], unknown[16], message[8192];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(what, sizeof what, format, arguments);
  va_end(arguments);

  const char *name = error_name(error);
  if (name == NULL) {
    snprintf(unknown, sizeof unknown, "E%d", error);
    name = unknown;
  }
  const char *hint = NULL;
  for (; hints != NULL && hints->text != NULL; hints++)
    if (hints->error == error) hint = hints->text;
  snprintf(message, sizeof message, "%s: %s: %s (%s)%s%s", syscall, what, name, strerror(error), hint != NULL ? ": " : "",
           hint != NULL ? hint : "");

  napi_value exception;
  if (napi_create_error(env, from_text(env, name), from_text(env, message), &exception) != napi_ok) return NULL;
  set(env, exception, "errno", from_i32(env, -error));
  set(env, exception, "syscall", from_text(env, syscall));
  napi_throw(env, exception);
  return NULL;
}
