/*
 * Descriptors and mappings, and who owns them.
 *
 * A resource belongs to the environment (thread) that opened it, which alone closes it; what is still open when the
 * environment goes away is closed then. An AF_XDP socket lives until its descriptor is closed *and* its rings are unmapped,
 * so both always happen together, and so that no JavaScript view outlives the mapping the ring's ArrayBuffers are
 * detached first.
 *
 * Another thread may use a descriptor by its number in two cases: a worker enters its socket into the XSKMAP main owns, and
 * anyone signals an eventfd. `kinds` says for every descriptor number of the process what this binding opened it as,
 * so a stale number is an error and not a write into somebody's file; the lock keeps it from being closed in between.
 */
#include "addon.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static uint8_t kinds[FDS_MAX];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const char *const KIND_NAMES[] = { "nothing", "an AF_XDP socket", "a BPF map", "a BPF program", "a BPF link",
                                          "an eventfd",      "a child process",  "a packet socket", "a BPF counter",
                                          "a netlink socket" };

struct resources {
  struct resource *first;
};

static struct resources *resources_of(napi_env env) {
  void *data = NULL;
  napi_get_instance_data(env, &data);
  return data;
}

/* Returns whether the mapping is gone. */
static bool unmap_ring(napi_env env, struct ring_mapping *ring) {
  if (ring->address == NULL) return true;
  if (env != NULL && ring->buffer != NULL) {
    napi_handle_scope scope;
    napi_value buffer = NULL;
    bool detached = false;
    napi_open_handle_scope(env, &scope);
    bool found = napi_get_reference_value(env, ring->buffer, &buffer) == napi_ok && buffer != NULL;
    /* Detached by someone else (ArrayBuffer.prototype.transfer): another buffer now leads to the mapping, so it stays. */
    bool ours = found && napi_is_detached_arraybuffer(env, buffer, &detached) == napi_ok && !detached &&
                napi_detach_arraybuffer(env, buffer) == napi_ok;
    napi_close_handle_scope(env, scope);
    napi_delete_reference(env, ring->buffer);
    ring->buffer = NULL;
    if (!ours) return false;
  }
  munmap(ring->address, ring->bytes);
  ring->address = NULL;
  return true;
}

/* With `env` NULL the environment is going away: no JavaScript runs any more, its references are dropped by Node. */
static void release(napi_env env, struct resource *resource) {
  for (int i = 0; i < RINGS; i++) unmap_ring(env, &resource->rings[i]);
  if (env != NULL && resource->memory != NULL) napi_delete_reference(env, resource->memory);
  if (resource->kind == KIND_CHILD) end_child(resource->fd);
  pthread_mutex_lock(&lock);
  kinds[resource->fd] = KIND_NONE;
  close(resource->fd);
  pthread_mutex_unlock(&lock);
  free(resource);
}

static void close_all(void *data) {
  struct resources *resources = data;
  while (resources->first != NULL) {
    struct resource *resource = resources->first;
    resources->first = resource->next;
    release(NULL, resource);
  }
  free(resources);
}

bool open_resources(napi_env env) {
  struct resources *resources = calloc(1, sizeof *resources);
  if (resources == NULL || napi_set_instance_data(env, resources, NULL, NULL) != napi_ok ||
      napi_add_env_cleanup_hook(env, close_all, resources) != napi_ok) {
    free(resources);
    napi_throw_error(env, "ENOMEM", "no memory for the native binding's resources");
    return false;
  }
  return true;
}

struct resource *own(napi_env env, int fd, enum kind kind, const char *label) {
  struct resources *resources = resources_of(env);
  struct resource *resource = fd < FDS_MAX ? calloc(1, sizeof *resource) : NULL;
  if (resource == NULL || resources == NULL) {
    free(resource);
    close(fd);
    throw_errno(env, fd < FDS_MAX ? ENOMEM : EMFILE, "open", NULL, "%s %s", KIND_NAMES[kind], label);
    return NULL;
  }
  resource->fd = fd;
  resource->kind = kind;
  snprintf(resource->label, sizeof resource->label, "%s", label);
  resource->next = resources->first;
  resources->first = resource;
  pthread_mutex_lock(&lock);
  kinds[fd] = kind;
  pthread_mutex_unlock(&lock);
  return resource;
}

struct resource *to_resource(napi_env env, napi_value value, enum kind kind) {
  int32_t fd;
  if (!to_i32(env, value, "descriptor", 0, FDS_MAX - 1, &fd)) return NULL;
  struct resources *resources = resources_of(env);
  for (struct resource *r = resources != NULL ? resources->first : NULL; r != NULL; r = r->next)
    if (r->fd == fd && (kind == KIND_NONE || r->kind == kind)) return r;
  throw_errno(env, EBADF, "descriptor", NULL, "%d is not %s that this thread has open", fd,
              kind == KIND_NONE ? "one" : KIND_NAMES[kind]);
  return NULL;
}

bool hold_fd(int fd, enum kind kind) {
  if (fd < 0 || fd >= FDS_MAX) return false;
  pthread_mutex_lock(&lock);
  if (kinds[fd] == kind) return true;
  pthread_mutex_unlock(&lock);
  return false;
}

void let_go_fd(void) { pthread_mutex_unlock(&lock); }

bool to_held_fd(napi_env env, napi_value value, enum kind kind, int *fd) {
  int32_t number;
  if (!to_i32(env, value, "descriptor", 0, FDS_MAX - 1, &number)) return false;
  *fd = number;
  if (hold_fd(number, kind)) return true;
  throw_errno(env, EBADF, "descriptor", NULL, "%d is not %s that this process has open", number, KIND_NAMES[kind]);
  return false;
}

void close_resource(napi_env env, struct resource *resource) {
  struct resources *resources = resources_of(env);
  struct resource **at = &resources->first;
  while (*at != resource) at = &(*at)->next;
  *at = resource->next;
  release(env, resource);
}

/* closeDescriptor(fd): closes what this thread opened; views of a socket's rings become empty. */
static napi_value closeDescriptor(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  take_arguments(env, info, arguments, 1);
  struct resource *resource = to_resource(env, arguments[0], KIND_NONE);
  if (resource != NULL) close_resource(env, resource);
  return undefined(env);
}

void register_resource(napi_env env, napi_value exports) { DEFINE(env, exports, closeDescriptor); }
