/* libsegprior, core: export macro, version, status codes, context, tensors, per-problem info.
 *
 * Plain C99. Everything here is part of the stable ABI: codes and field offsets never change meaning.
 * Structs that begin with struct_size may grow at their end; the others never change.
 */
#ifndef SEGPRIOR_CORE_H
#define SEGPRIOR_CORE_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#if defined(SEGPRIOR_BUILDING)
#define SEGPRIOR_API __declspec(dllexport)
#else
#define SEGPRIOR_API __declspec(dllimport)
#endif
#else
#define SEGPRIOR_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Version ------------------------------------------------------------------------------------------- */

#define SEGPRIOR_VERSION_MAJOR 0
#define SEGPRIOR_VERSION_MINOR 5
#define SEGPRIOR_VERSION_PATCH 0

/* Version of the loaded library as major * 10000 + minor * 100 + patch. Compare with the macros above to
 * detect a header that does not belong to the library. */
SEGPRIOR_API int32_t segprior_version(void);

/* 1 if this build contains the CUDA backend, else 0. Says nothing about a GPU being present. */
SEGPRIOR_API int32_t segprior_has_cuda(void);

/* ---- Status codes -------------------------------------------------------------------------------------- */

/* Every function that can fail returns one of these. 0 is success; 1xx the caller's argument, 2xx the state
 * of the library or of an object, 3xx the machine, 9xx a defect of the library. A code never changes meaning.
 */
typedef int32_t segprior_status;

/* The values of segprior_status. */
enum {
  SEGPRIOR_OK = 0,                       /* done */
  SEGPRIOR_ERROR_NULL_POINTER = 101,     /* a required pointer is NULL */
  SEGPRIOR_ERROR_VALUE = 102,            /* a number or enumerator is outside its documented range */
  SEGPRIOR_ERROR_DTYPE = 103,            /* a tensor's dtype is not allowed here */
  SEGPRIOR_ERROR_SHAPE = 104,            /* a tensor's rank or extents do not fit */
  SEGPRIOR_ERROR_STRIDES = 105,          /* a tensor is not C-contiguous */
  SEGPRIOR_ERROR_DEVICE = 106,           /* a tensor or pointer does not live on the context's device */
  SEGPRIOR_ERROR_OVERLAP = 107,          /* an output shares memory with another argument */
  SEGPRIOR_ERROR_BUFFER_TOO_SMALL = 108, /* workspace or saved is smaller than the size query says */
  SEGPRIOR_ERROR_SIZE_OVERFLOW = 109,    /* a byte count does not fit in 63 bits */
  SEGPRIOR_ERROR_OPTIONS = 110,   /* an options struct has a bad struct_size or an unknown non-zero tail */
  SEGPRIOR_ERROR_ALIGNMENT = 111, /* a pointer is not aligned as documented */
  SEGPRIOR_ERROR_BUSY = 201,      /* another thread is inside this context */
  SEGPRIOR_ERROR_NOT_SUPPORTED = 202, /* a valid request that this version does not implement; documented */
  SEGPRIOR_ERROR_OUT_OF_MEMORY = 301, /* host or device memory could not be had */
  SEGPRIOR_ERROR_NO_DEVICE = 302,     /* no such device, no driver, or a build without CUDA */
  SEGPRIOR_ERROR_CUDA = 303,          /* the CUDA runtime reported an error; the text has its name */
  SEGPRIOR_ERROR_INTERNAL = 901       /* a defect of the library */
};

/* Constant English text of a status code; never NULL. */
SEGPRIOR_API const char *segprior_status_string(segprior_status status);

/* Text of the calling thread's last failed call: it names the argument, its value and the rule it broke. ""
 * if no call has failed on this thread. Valid until the thread's next failing call. */
SEGPRIOR_API const char *segprior_last_error(void);

/* ---- Devices and context ------------------------------------------------------------------------------- */

/* Types of devices, with the values of DLPack's DLDeviceType. */
enum {
  SEGPRIOR_CPU = 1, /* host memory */
  SEGPRIOR_CUDA = 2 /* memory of an NVIDIA GPU */
};

/* A device: where a context works and a tensor lives. */
typedef struct segprior_device {
  int32_t type;  /* SEGPRIOR_CPU or SEGPRIOR_CUDA */
  int32_t index; /* CUDA device ordinal; 0 for the CPU */
} segprior_device;

/* Number of usable devices of a type: 1 for the CPU; for CUDA 0 without a driver, a GPU or the CUDA build. */
SEGPRIOR_API int32_t segprior_device_count(int32_t device_type);

/* A context belongs to one device and is used by one thread at a time (a second thread gets
 * SEGPRIOR_ERROR_BUSY). It holds the device, the stream and the CPU thread count; no scratch memory. */
typedef struct segprior_context segprior_context;

/* Creates a context. Fails with SEGPRIOR_ERROR_NO_DEVICE if the device does not exist; *out is then NULL. */
SEGPRIOR_API segprior_status segprior_context_create(segprior_device device, segprior_context **out);

/* Destroys a context. NULL is allowed. Does not wait for work that is still queued on the stream. */
SEGPRIOR_API void segprior_context_destroy(segprior_context *context);

/* CUDA: all later work of this context goes to `stream` (a cudaStream_t; NULL is the legacy default stream).
 * CPU: only NULL is accepted. */
SEGPRIOR_API segprior_status segprior_context_set_stream(segprior_context *context, void *stream);

/* CPU: number of threads of later calls; 0 (the default) means what the OpenMP runtime would use. The results
 * do not depend on it. Size queries do: set it first. CUDA: accepted and unused. In a child process forked
 * after the parent had used several threads, calls use one: OpenMP's threads do not survive a fork. */
SEGPRIOR_API segprior_status segprior_context_set_threads(segprior_context *context, int32_t threads);

/* ---- Tensors ------------------------------------------------------------------------------------------- */

/* Element types of tensors. */
enum {
  SEGPRIOR_FLOAT32 = 1,  /* IEEE binary32 */
  SEGPRIOR_FLOAT64 = 2,  /* IEEE binary64 */
  SEGPRIOR_FLOAT16 = 3,  /* IEEE binary16 */
  SEGPRIOR_BFLOAT16 = 4, /* the upper half of a float32 */
  SEGPRIOR_UINT8 = 5,    /* masks and labels; DLPack's bool and uint8 */
  SEGPRIOR_INT32 = 6,    /* since 0.4: labels, indices */
  SEGPRIOR_INT64 = 7     /* since 0.4: labels, counts */
};

/* Limits of tensors. */
enum { SEGPRIOR_MAX_NDIM = 8 /* the most axes */ };

/* A view of memory that the caller owns. Only C-contiguous tensors are accepted: `strides` (in elements) is
 * NULL or spells the contiguous strides; anything else is SEGPRIOR_ERROR_STRIDES, never a silent copy. The
 * first element is at (char *)data + byte_offset and must be aligned to its element size. */
typedef struct segprior_tensor {
  void *data;             /* memory of the device */
  segprior_device device; /* where data lives */
  int32_t dtype;          /* one of the enumerators above */
  int32_t ndim;           /* 0 .. SEGPRIOR_MAX_NDIM */
  const int64_t *shape;   /* [ndim] extents */
  const int64_t *strides; /* NULL, or [ndim] in elements, C-contiguous */
  uint64_t byte_offset;   /* from data to the first element */
} segprior_tensor;

/* Fills `out` from a DLPack `DLTensor *` (any framework's). `out` borrows the DLTensor's shape and strides:
 * keep it alive. CUDA-pinned host memory counts as CPU, CUDA-managed memory as CUDA. */
SEGPRIOR_API segprior_status segprior_tensor_from_dlpack(const void *dl_tensor, segprior_tensor *out);

/* ---- CUDA paths -----------------------------------------------------------------------------------------
 */

/* Which kernels serve a call on a CUDA device; opts.path of the operators. All but _AUTO fail with
 * SEGPRIOR_ERROR_NOT_SUPPORTED where they cannot serve the problem or the device; each operator's note in
 * kernels/ has the table of sizes. */
enum {
  SEGPRIOR_PATH_AUTO = 0,      /* the fastest path that serves the problem's size and options */
  SEGPRIOR_PATH_STREAMING = 1, /* state in global memory, kernels per iteration */
  SEGPRIOR_PATH_ON_CHIP = 2,   /* all iterations in one kernel, a problem's state on one multiprocessor */
  SEGPRIOR_PATH_CLUSTER = 3,   /* since 0.3, softcut: the same on a thread-block cluster (sm_90) */
  SEGPRIOR_PATH_PERSISTENT = 4 /* since 0.3, softcut: all iterations in one cooperative kernel on the whole
                                  device, state in global memory */
};

/* ---- Per-problem report -------------------------------------------------------------------------------- */

/* How the iteration of one batch item ended. A result, not an error: the call itself returned SEGPRIOR_OK. */
enum {
  SEGPRIOR_CONVERGED = 0,     /* the residual fell below the tolerance */
  SEGPRIOR_ITERATION_CAP = 1, /* all iterations were done (the normal end without a tolerance) */
  SEGPRIOR_NONFINITE_INPUT =
      2, /* features or a warm start hold NaN or Inf: all results of the item are NaN */
  SEGPRIOR_INFEASIBLE_VOLUME =
      3,                  /* the volumes cannot all hold; the result is finite, for rescaled volumes */
  SEGPRIOR_BREAKDOWN = 4, /* the numbers exceed the floating-point range (tiny eps): results are NaN */
  SEGPRIOR_INVALID_PARAMETER = 5, /* a parameter in device memory is outside its domain (eps <= 0, negative
                                     edge, lower > upper, ...): all results of the item are NaN */
  /* since 0.3. The iteration met the tolerance by its own account, but the residual computed anew from the
     result, the one reported, does not: rounding, of the result or gathered on the way, keeps it above. Far
     above, only a wider dtype helps; just above, starting again from the result may. */
  SEGPRIOR_PRECISION_LIMIT = 6
};

/* 16 bytes, written in the context's device memory by compute calls, one per batch item, or per linear system
 * (softcut). */
typedef struct segprior_info {
  int32_t status;     /* one of the enumerators above */
  int32_t iterations; /* iterations done */
  double
      residual; /* softmax: max |u_T - u_(T-1)| over the item's classes and voxels at the last check, 0 if
                   no iteration was done. softcut: the norm of p - A x in the scale of the stopping rule.
                   proposals: voxels outside the bounds. losses: 0. NaN if the item failed, but for losses */
} segprior_info;

/* Copies `count` infos from the context's device to `host`. Waits for the stream: the only call that does. */
SEGPRIOR_API segprior_status segprior_info_read_sync(segprior_context *context, const segprior_info *info,
                                                     int64_t count, segprior_info *host);

#ifdef __cplusplus
}
#endif
#endif
