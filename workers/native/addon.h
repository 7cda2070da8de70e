/*
 * The native binding: what Node lacks and the data plane needs, as thin functions over Linux system calls.
 *
 * It uses only node_api.h and Linux UAPI headers, and it never touches a packet. Three rules hold in every file:
 *
 *  - Nothing JavaScript passes can crash the process: every argument is type- and range-checked, and a descriptor is
 *    acted upon only if this binding opened it (resource.c).
 *  - Every failure throws an Error with `code`, `errno` (negative, as in Node) and `syscall`; its message says which call
 *    failed, on what, and what to do about it.
 *  - Whatever a thread opened is closed when its environment goes away.
 */
#ifndef CONSTELLATION_ADDON_H
#define CONSTELLATION_ADDON_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define NAPI_VERSION 8

#include <node_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- addon.c: registration, arguments, results ---- */

#define DEFINE(env, exports, function) define_function(env, exports, #function, function)
void define_function(napi_env env, napi_value exports, const char *name, napi_callback function);

/* Takes `count` arguments; missing ones are `undefined`, which no check below accepts. */
void take_arguments(napi_env env, napi_callback_info info, napi_value *arguments, size_t count);

/* Each check throws a TypeError or RangeError naming the argument, and returns false. */
bool to_u32(napi_env env, napi_value value, const char *name, uint32_t min, uint32_t max, uint32_t *out);
bool to_i32(napi_env env, napi_value value, const char *name, int32_t min, int32_t max, int32_t *out);
bool to_bool(napi_env env, napi_value value, const char *name, bool *out);
/* A string of 1 to `size - 1` bytes without NUL. */
bool to_text(napi_env env, napi_value value, const char *name, char *out, size_t size);
/* A Uint8Array; `shared` asks that its memory be a SharedArrayBuffer's (which can neither move nor be detached). */
bool to_bytes(napi_env env, napi_value value, const char *name, bool shared, uint8_t **data, size_t *length);
/* An Int32Array. */
bool to_words(napi_env env, napi_value value, const char *name, int32_t **data, size_t *length);
/* A Float64Array. */
bool to_doubles(napi_env env, napi_value value, const char *name, double **data, size_t *length);

napi_value from_u32(napi_env env, uint32_t value);
napi_value from_i32(napi_env env, int32_t value);
napi_value from_double(napi_env env, double value);
napi_value from_bool(napi_env env, bool value);
napi_value from_text(napi_env env, const char *value);
napi_value undefined(napi_env env);
void set(napi_env env, napi_value object, const char *name, napi_value value);

/* ---- error.c: the one way a failed system call reaches JavaScript ---- */

/* What to do about an errno of a certain call. A table of them ends with { 0, NULL }. */
struct hint {
  int error;
  const char *text;
};

/* Throws and returns NULL. `format` says on what the call was made. */
napi_value throw_errno(napi_env env, int error, const char *syscall, const struct hint *hints, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* ---- resource.c: descriptors and mappings owned by a thread ---- */

enum kind {
  KIND_NONE = 0,
  KIND_XSK,
  KIND_MAP,
  KIND_PROGRAM,
  KIND_LINK,
  KIND_EVENT,
  KIND_CHILD,
  KIND_PACKET,
  KIND_COUNTER,
  KIND_NETLINK,
};

#define RINGS 4
/* Descriptors are below this. */
#define FDS_MAX 65536

struct ring_mapping {
  void *address;
  size_t bytes;
  napi_ref buffer; /* the ArrayBuffer handed out over it */
};

struct resource {
  int fd;
  enum kind kind;
  char label[48]; /* what it is, for errors: "eth0 queue 3" */
  struct ring_mapping rings[RINGS];
  napi_ref memory; /* keeps the UMEM's view, and so its memory, alive */
  struct resource *next;
};

bool open_resources(napi_env env);
/* Takes over `fd`; on failure (throws) it is closed. */
struct resource *own(napi_env env, int fd, enum kind kind, const char *label);
/* A descriptor argument this thread has opened as `kind`, or throws and returns NULL. */
struct resource *to_resource(napi_env env, napi_value value, enum kind kind);
/*
 * Keeps `fd` from being closed until let go, if some thread of this process has it open as `kind`. Nothing that can throw
 * or block may happen in between.
 */
bool hold_fd(int fd, enum kind kind);
void let_go_fd(void);
/* The same for an argument; throws when there is no such descriptor. */
bool to_held_fd(napi_env env, napi_value value, enum kind kind, int *fd);
void close_resource(napi_env env, struct resource *resource);

/* ---- fork.c ---- */

/* Kills the child behind a pidfd, unless it has ended, and reaps it, unless it was. */
void end_child(int pidfd);

/* ---- dontfork.c ---- */

/* This memory was marked MADV_DONTFORK, for good. Returns whether there was room to remember it. */
bool note_dontfork(const void *from, size_t length);

/* ---- one registration function per topic ---- */

void register_resource(napi_env env, napi_value exports);
void register_xsk(napi_env env, napi_value exports);
void register_bpf(napi_env env, napi_value exports);
void register_wait(napi_env env, napi_value exports);
void register_thread(napi_env env, napi_value exports);
void register_memory(napi_env env, napi_value exports);
void register_interface(napi_env env, napi_value exports);
void register_neighbours(napi_env env, napi_value exports);
void register_netlink(napi_env env, napi_value exports);
void register_offload(napi_env env, napi_value exports);
void register_notify(napi_env env, napi_value exports);
void register_fork(napi_env env, napi_value exports);
void register_dontfork(napi_env env, napi_value exports);

#endif
