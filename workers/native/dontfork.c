/*
 * Keeps out of a fork what its child never touches.
 *
 * A fork copies the page tables of all private memory, and that is the whole of its time: of a process of six threads, each
 * with a JavaScript heap in pages of 4 KiB, more than of 256 MiB of state in huge pages. The child of a snapshot reads state
 * alone. So before a fork every anonymous mapping is marked MADV_DONTFORK but the state, the calling thread's stack and thread-local
 * storage, and the zeroed data of libraries; and unmarked right after, for who forks to start a program needs his heap.
 *
 * Marking takes some hundred calls, about a millisecond in all; it is done while packets flow, before anybody is stopped. What
 * another thread maps meanwhile is merely forked too. What memory.c was asked to keep out of forks stays out: it is not
 * touched here.
 */
#include "addon.h"
#include "interrupted.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RANGES_MAX 8192
#define VIEWS 2
#define KEPT_OUT_MAX 1024
#define MAPS_BYTES_MAX (8 << 20)

struct range {
  uintptr_t from, to;
};

static struct range marked[RANGES_MAX];
static size_t marked_count;

static struct range kept_out[KEPT_OUT_MAX];
static size_t kept_out_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

bool note_dontfork(const void *from, size_t length) {
  pthread_mutex_lock(&lock);
  bool room = kept_out_count < KEPT_OUT_MAX;
  struct range range = { (uintptr_t)from, (uintptr_t)from + length };
  for (size_t i = 0; i < kept_out_count; i++) {
    /* The same memory, or what took its place after it was freed. */
    if (kept_out[i].from < range.to && range.from < kept_out[i].to) {
      kept_out[i] = range;
      pthread_mutex_unlock(&lock);
      return true;
    }
  }
  if (room) kept_out[kept_out_count++] = range;
  pthread_mutex_unlock(&lock);
  return room;
}

static bool touches(const struct range *ranges, size_t count, struct range range) {
  for (size_t i = 0; i < count; i++)
    if (ranges[i].from < range.to && range.from < ranges[i].to) return true;
  return false;
}

/* The whole of /proc/self/maps, with a 0 at its end; free it. */
static char *read_maps(size_t *length) {
  int fd = UNINTERRUPTED(open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
  char *text = fd < 0 ? NULL : malloc(MAPS_BYTES_MAX);
  *length = 0;
  while (text != NULL && *length < MAPS_BYTES_MAX - 1) {
    ssize_t got = UNINTERRUPTED(read(fd, text + *length, MAPS_BYTES_MAX - 1 - *length));
    if (got <= 0) break;
    *length += (size_t)got;
  }
  if (text != NULL) text[*length] = 0;
  if (fd >= 0) close(fd);
  return text;
}

/*
 * thinFork(arena, locals) -> how many bytes of address space are kept out of forks until `thickenFork`; not these two, which
 * the child will read. Where /proc cannot be read nothing is kept out, and a fork takes longer.
 */
static napi_value thinFork(napi_env env, napi_callback_info info) {
  napi_value arguments[VIEWS];
  struct range needed[VIEWS + 2];
  take_arguments(env, info, arguments, VIEWS);
  for (size_t i = 0; i < VIEWS; i++) {
    uint8_t *data;
    size_t length;
    if (!to_bytes(env, arguments[i], "view", true, &data, &length)) return NULL;
    needed[i] = (struct range){ (uintptr_t)data, (uintptr_t)data + length };
  }
  uintptr_t stack = (uintptr_t)needed, thread = (uintptr_t)&errno;
  needed[VIEWS] = (struct range){ stack, stack + 1 };
  needed[VIEWS + 1] = (struct range){ thread, thread + 1 };

  size_t length;
  double bytes = 0;
  uintptr_t file_end = 0; /* where the last mapping of a file ended: zeroed data follows at once */
  char *text = read_maps(&length), *rest = NULL;
  pthread_mutex_lock(&lock);
  for (char *line = text == NULL ? NULL : strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
    unsigned long from, to, inode;
    char permissions[8], path[16] = "";
    if (sscanf(line, "%lx-%lx %7s %*s %*s %lu %15s", &from, &to, permissions, &inode, path) < 4) continue;
    struct range range = { from, to };
    bool zeroed = from == file_end;
    if (inode != 0) file_end = to;
    bool anonymous = inode == 0 && (path[0] == 0 || strcmp(path, "[heap]") == 0 || strncmp(path, "[anon", 5) == 0);
    if (!anonymous || zeroed || permissions[3] != 'p' || marked_count == RANGES_MAX ||
        touches(needed, VIEWS + 2, range) || touches(kept_out, kept_out_count, range))
      continue;
    if (madvise((void *)from, to - from, MADV_DONTFORK) != 0) continue; /* unmapped meanwhile */
    marked[marked_count++] = range;
    bytes += (double)(to - from);
  }
  pthread_mutex_unlock(&lock);
  free(text);
  return from_double(env, bytes);
}

/* thickenFork(): what `thinFork` kept out is forked again. */
static napi_value thickenFork(napi_env env, napi_callback_info info) {
  (void)info;
  pthread_mutex_lock(&lock);
  for (size_t i = 0; i < marked_count; i++) {
    /* Memory that came in its place meanwhile and is to stay out of forks does. ENOMEM: there are holes now, no matter. */
    if (!touches(kept_out, kept_out_count, marked[i]))
      madvise((void *)marked[i].from, marked[i].to - marked[i].from, MADV_DOFORK);
  }
  marked_count = 0;
  pthread_mutex_unlock(&lock);
  return undefined(env);
}

void register_dontfork(napi_env env, napi_value exports) {
  DEFINE(env, exports, thinFork);
  DEFINE(env, exports, thickenFork);
}
