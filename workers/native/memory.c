/* Memory: where a view lies, and what the kernel should know of it. */
#include "addon.h"
#include "interrupted.h"

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct hint ADVICE_HINTS[] = {
  { EINVAL, "this kernel is built without transparent huge pages" },
  { 0, NULL },
};

enum { HUGEPAGE, NOHUGEPAGE, DONTFORK, DOFORK, WILLNEED, POPULATE, COLLAPSE, ADVICES };

#ifndef MADV_POPULATE_WRITE /* Linux 5.14 */
#define MADV_POPULATE_WRITE 23
#endif

#ifndef MADV_COLLAPSE /* Linux 6.1 */
#define MADV_COLLAPSE 25
#endif

static const struct {
  int advice;
  const char *name;
} ADVICE[ADVICES] = {
  [HUGEPAGE] = { MADV_HUGEPAGE, "MADV_HUGEPAGE" }, [NOHUGEPAGE] = { MADV_NOHUGEPAGE, "MADV_NOHUGEPAGE" },
  [DONTFORK] = { MADV_DONTFORK, "MADV_DONTFORK" }, [DOFORK] = { MADV_DOFORK, "MADV_DOFORK" },
  [WILLNEED] = { MADV_WILLNEED, "MADV_WILLNEED" }, [POPULATE] = { MADV_POPULATE_WRITE, "MADV_POPULATE_WRITE" },
  [COLLAPSE] = { MADV_COLLAPSE, "MADV_COLLAPSE" },
};

/* pageBytes() -> the size of a page. */
static napi_value pageBytes(napi_env env, napi_callback_info info) {
  (void)info;
  return from_double(env, (double)sysconf(_SC_PAGESIZE));
}

/* memoryAddress(view) -> the address of a Uint8Array over a SharedArrayBuffer (a double holds it exactly, it has 47 bits). */
static napi_value memoryAddress(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  uint8_t *data;
  size_t length;
  take_arguments(env, info, arguments, 1);
  if (!to_bytes(env, arguments[0], "view", true, &data, &length)) return NULL;
  return from_double(env, (double)(uintptr_t)data);
}

/*
 * memoryAdvise(view, advice) -> how many bytes were advised: the whole pages within the view, for what else is on a
 * page the view covers in part is somebody else's. `advice` is an index of the table above.
 */
static napi_value memoryAdvise(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  uint8_t *data;
  size_t length;
  uint32_t index;
  take_arguments(env, info, arguments, 2);
  if (!to_bytes(env, arguments[0], "view", true, &data, &length) ||
      !to_u32(env, arguments[1], "advice", 0, ADVICES - 1, &index))
    return NULL;
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
  uintptr_t from = ((uintptr_t)data + page - 1) & ~(page - 1);
  uintptr_t to = ((uintptr_t)data + length) & ~(page - 1);
  if (to <= from) return from_double(env, 0);
  if (PERSISTENTLY(madvise((void *)from, to - from, ADVICE[index].advice)) != 0)
    return throw_errno(env, errno, "madvise", ADVICE_HINTS, "%s of %zu bytes", ADVICE[index].name, (size_t)(to - from));
  if (ADVICE[index].advice == MADV_DONTFORK) note_dontfork((void *)from, to - from);
  return from_double(env, (double)(to - from));
}

void register_memory(napi_env env, napi_value exports) {
  DEFINE(env, exports, pageBytes);
  DEFINE(env, exports, memoryAddress);
  DEFINE(env, exports, memoryAdvise);
}
