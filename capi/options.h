// Size-first structs. A caller compiled against an older header passes a shorter struct: the missing tail
// gets the defaults; `oldest`, the struct's size in the version that introduced it, is the least that any
// caller can have. A newer caller's longer struct is accepted if the tail that this library does not know is
// all zero. No compiler makes a struct whose size is not a multiple of its alignment: half a field is never
// taken.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>

#include "kernels/common/error.h"

namespace segprior {

template <class S>
bool plausible_size(size_t size, size_t oldest) {
  // The upper limit catches uninitialised structs before their bytes are read.
  return size >= oldest && size <= 4096 && size % alignof(S) == 0;
}

template <class S>
S read_struct(const S *given, const S &defaults, const char *name, size_t oldest = sizeof(S)) {
  if (!given) throw Error(SEGPRIOR_ERROR_NULL_POINTER, std::string(name) + " is NULL");
  size_t size;
  std::memcpy(&size, given, sizeof size);
  if (!plausible_size<S>(size, oldest))
    throw Error(SEGPRIOR_ERROR_OPTIONS, std::string(name) + ".struct_size = " + std::to_string(size) +
                                            " is not the size of the struct (" + std::to_string(sizeof(S)) +
                                            " in this version)");
  const char *bytes = reinterpret_cast<const char *>(given);
  for (size_t k = sizeof(S); k < size; ++k)
    if (bytes[k] != 0)
      throw Error(SEGPRIOR_ERROR_OPTIONS,
                  std::string(name) + ": byte " + std::to_string(k) +
                      " of a newer struct is set, but this version of the library does not know it");
  S result = defaults;
  std::memcpy(&result, given, std::min(size, sizeof(S)));
  return result;
}

// Fills a caller's struct of `size` bytes (its version) with defaults; bytes this version does not know
// become 0.
template <class S>
void init_struct(S *out, size_t size, S defaults, const char *name, size_t oldest = sizeof(S)) {
  if (!out) throw Error(SEGPRIOR_ERROR_NULL_POINTER, std::string(name) + " is NULL");
  if (!plausible_size<S>(size, oldest))
    throw Error(SEGPRIOR_ERROR_OPTIONS,
                "struct_size = " + std::to_string(size) + " is not the size of " + name);
  defaults.struct_size = size;
  std::memset(static_cast<void *>(out), 0, size);
  std::memcpy(static_cast<void *>(out), &defaults, std::min(size, sizeof(S)));
}

}  // namespace segprior
