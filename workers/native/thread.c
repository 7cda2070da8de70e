/* The calling thread: which core it may use, its name, its time. */
#include "addon.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const struct hint AFFINITY_HINTS[] = {
  { EINVAL, "this process may not run on that core; see its cpuset (systemd: AllowedCPUs=, CPUAffinity=) and `nproc`" },
  { 0, NULL },
};

/* threadPin(core): the calling thread runs on this core alone from now on. */
static napi_value threadPin(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  uint32_t core;
  cpu_set_t set;
  take_arguments(env, info, arguments, 1);
  if (!to_u32(env, arguments[0], "core", 0, CPU_SETSIZE - 1, &core)) return NULL;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0)
    return throw_errno(env, errno, "sched_setaffinity", AFFINITY_HINTS, "thread to core %u", core);
  return undefined(env);
}

/* threadCores() -> the cores the calling thread may run on, ascending. */
static napi_value threadCores(napi_env env, napi_callback_info info) {
  (void)info;
  cpu_set_t allowed;
  napi_value result;
  uint32_t count = 0;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
    return throw_errno(env, errno, "sched_getaffinity", NULL, "this thread");
  if (napi_create_array(env, &result) != napi_ok) return NULL;
  for (uint32_t core = 0; core < CPU_SETSIZE; core++)
    if (CPU_ISSET(core, &allowed)) napi_set_element(env, result, count++, from_u32(env, core));
  return result;
}

/* threadName(name): what `ps -L` and `top -H` show for the calling thread; at most 15 bytes. */
static napi_value threadName(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  char name[16];
  take_arguments(env, info, arguments, 1);
  if (!to_text(env, arguments[0], "name", name, sizeof name)) return NULL;
  if (prctl(PR_SET_NAME, name) != 0) return throw_errno(env, errno, "prctl", NULL, "PR_SET_NAME %s", name);
  return undefined(env);
}

/* threadId() -> the kernel's id of the calling thread. */
static napi_value threadId(napi_env env, napi_callback_info info) {
  (void)info;
  return from_i32(env, (int32_t)syscall(SYS_gettid));
}

/* threadCpuTime() -> nanoseconds of CPU the calling thread has used, in user mode and in the kernel. */
static napi_value threadCpuTime(napi_env env, napi_callback_info info) {
  (void)info;
  struct timespec time;
  if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) != 0)
    return throw_errno(env, errno, "clock_gettime", NULL, "CLOCK_THREAD_CPUTIME_ID");
  return from_double(env, (double)time.tv_sec * 1e9 + (double)time.tv_nsec);
}

/* exitNow(code): ends the process at once: threads in system calls are not waited for, and nothing is flushed. */
static napi_value exitNow(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  uint32_t code;
  take_arguments(env, info, arguments, 1);
  if (!to_u32(env, arguments[0], "code", 0, 255, &code)) return NULL;
  _exit((int)code);
}

void register_thread(napi_env env, napi_value exports) {
  DEFINE(env, exports, threadPin);
  DEFINE(env, exports, threadCores);
  DEFINE(env, exports, threadName);
  DEFINE(env, exports, threadId);
  DEFINE(env, exports, threadCpuTime);
  DEFINE(env, exports, exitNow);
}
