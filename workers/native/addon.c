/* Registration, argument checks and results. */
#include "addon.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static napi_value start(napi_env env, napi_value exports) {
  if (!open_resources(env)) return NULL;
  register_resource(env, exports);
  register_xsk(env, exports);
  register_bpf(env, exports);
  register_wait(env, exports);
  register_thread(env, exports);
  register_memory(env, exports);
  register_interface(env, exports);
  register_neighbours(env, exports);
  register_netlink(env, exports);
  register_offload(env, exports);
  register_notify(env, exports);
  register_fork(env, exports);
  register_dontfork(env, exports);
  return exports;
}

NAPI_MODULE(constellation, start)

void define_function(napi_env env, napi_value exports, const char *name, napi_callback function) {
  napi_value value;
  if (napi_create_function(env, name, NAPI_AUTO_LENGTH, function, NULL, &value) == napi_ok)
    napi_set_named_property(env, exports, name, value);
}

void take_arguments(napi_env env, napi_callback_info info, napi_value *arguments, size_t count) {
  napi_get_cb_info(env, info, &count, arguments, NULL, NULL);
}

static bool wrong_type(napi_env env, const char *name, const char *wanted) {
  char message[160];
  snprintf(message, sizeof message, "%s must be %s", name, wanted);
  napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", message);
  return false;
}

static bool whole(napi_env env, napi_value value, const char *name, double min, double max, double *out) {
  char message[160];
  double number;
  if (napi_get_value_double(env, value, &number) != napi_ok) return wrong_type(env, name, "a number");
  /* Written so that NaN fails too. */
  if (!(number >= min && number <= max) || number != floor(number)) {
    snprintf(message, sizeof message, "%s must be a whole number from %.0f to %.0f, got %g", name, min, max, number);
    napi_throw_range_error(env, "ERR_OUT_OF_RANGE", message);
    return false;
  }
  *out = number;
  return true;
}

bool to_u32(napi_env env, napi_value value, const char *name, uint32_t min, uint32_t max, uint32_t *out) {
  double number;
  if (!whole(env, value, name, min, max, &number)) return false;
  *out = (uint32_t)number;
  return true;
}

bool to_i32(napi_env env, napi_value value, const char *name, int32_t min, int32_t max, int32_t *out) {
  double number;
  if (!whole(env, value, name, min, max, &number)) return false;
  *out = (int32_t)number;
  return true;
}

bool to_bool(napi_env env, napi_value value, const char *name, bool *out) {
  return napi_get_value_bool(env, value, out) == napi_ok || wrong_type(env, name, "a boolean");
}

bool to_text(napi_env env, napi_value value, const char *name, char *out, size_t size) {
  char message[160];
  size_t length = 0;
  if (napi_get_value_string_utf8(env, value, NULL, 0, &length) != napi_ok) return wrong_type(env, name, "a string");
  if (length == 0 || length >= size) {
    snprintf(message, sizeof message, "%s must be 1 to %zu bytes long, got %zu", name, size - 1, length);
    napi_throw_range_error(env, "ERR_OUT_OF_RANGE", message);
    return false;
  }
  napi_get_value_string_utf8(env, value, out, size, &length);
  if (strlen(out) != length) return wrong_type(env, name, "a string without NUL");
  return true;
}

/* Node-API gives a view's address as data pointer of its buffer plus offset, for shared buffers too. */
static bool view(napi_env env, napi_value value, napi_typedarray_type wanted, bool shared, void **data, size_t *length) {
  napi_typedarray_type type;
  napi_value buffer;
  bool is = false, plain = false;
  if (napi_is_typedarray(env, value, &is) != napi_ok || !is) return false;
  if (napi_get_typedarray_info(env, value, &type, length, data, &buffer, NULL) != napi_ok || type != wanted) return false;
  return !shared || (napi_is_arraybuffer(env, buffer, &plain) == napi_ok && !plain);
}

bool to_bytes(napi_env env, napi_value value, const char *name, bool shared, uint8_t **data, size_t *length) {
  void *address = NULL;
  if (!view(env, value, napi_uint8_array, shared, &address, length))
    return wrong_type(env, name, shared ? "a Uint8Array over a SharedArrayBuffer" : "a Uint8Array");
  *data = address;
  return true;
}

bool to_words(napi_env env, napi_value value, const char *name, int32_t **data, size_t *length) {
  void *address = NULL;
  if (!view(env, value, napi_int32_array, false, &address, length)) return wrong_type(env, name, "an Int32Array");
  *data = address;
  return true;
}

bool to_doubles(napi_env env, napi_value value, const char *name, double **data, size_t *length) {
  void *address = NULL;
  if (!view(env, value, napi_float64_array, false, &address, length)) return wrong_type(env, name, "a Float64Array");
  *data = address;
  return true;
}

napi_value from_u32(napi_env env, uint32_t value) {
  napi_value result = NULL;
  napi_create_uint32(env, value, &result);
  return result;
}

napi_value from_i32(napi_env env, int32_t value) {
  napi_value result = NULL;
  napi_create_int32(env, value, &result);
  return result;
}

napi_value from_double(napi_env env, double value) {
  napi_value result = NULL;
  napi_create_double(env, value, &result);
  return result;
}

napi_value from_bool(napi_env env, bool value) {
  napi_value result = NULL;
  napi_get_boolean(env, value, &result);
  return result;
}

napi_value from_text(napi_env env, const char *value) {
  napi_value result = NULL;
  napi_create_string_utf8(env, value, NAPI_AUTO_LENGTH, &result);
  return result;
}

napi_value undefined(napi_env env) {
  napi_value result = NULL;
  napi_get_undefined(env, &result);
  return result;
}

void set(napi_env env, napi_value object, const char *name, napi_value value) {
  if (value != NULL) napi_set_named_property(env, object, name, value);
}
