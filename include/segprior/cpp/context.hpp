/* libsegprior in C++: the context, and the memory of operators. Part of segprior.hpp. */
#ifndef SEGPRIOR_CPP_CONTEXT_HPP
#define SEGPRIOR_CPP_CONTEXT_HPP

#include <cstddef>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "segprior/core.h"
#include "segprior/cpp/status.hpp"
#include "segprior/cpp/view.hpp"

namespace segprior {
inline namespace SEGPRIOR_CPP_NAMESPACE {

/* Where operators get workspace and saved state. */
struct Allocator {
  /* Memory of the context's device, aligned to 64 bytes; nullptr: there is none left. */
  std::function<void *(std::size_t bytes)> allocate;
  /* Called while work that uses the memory may still be queued: cudaFree, which waits, or cudaFreeAsync on
   * the context's stream. Called from destructors: it must not throw. */
  std::function<void(void *memory, std::size_t bytes)> release;

  static Allocator host() {
    return {[](std::size_t bytes) { return ::operator new(bytes, kAlignment, std::nothrow); },
            [](void *memory, std::size_t) { ::operator delete(memory, kAlignment); }};
  }

 private:
  static constexpr std::align_val_t kAlignment{256}; /* which libraries before 0.5 ask for */
};

/* One device, used by one thread at a time. Can be moved; must outlive its operators. */
class Context {
 public:
  /* The CPU, with as many threads as OpenMP would use. */
  Context() : Context(kCpu, Allocator::host()) {}

  /* Any device: {SEGPRIOR_CUDA, 0}, an allocator of its memory, and a cudaStream_t. */
  Context(segprior_device device, Allocator allocator, void *stream = nullptr)
      : device_(device), allocator_(std::move(allocator)) {
    segprior_context *made = nullptr;
    if (!allocator_.allocate || !allocator_.release)
      status_ = Status(SEGPRIOR_ERROR_NULL_POINTER, "allocator: allocate and release must both be set");
    else
      status_ = detail::status_of(segprior_context_create(device, &made));
    handle_.reset(made);
    status_ = status_.then([&] { return detail::status_of(segprior_context_set_stream(made, stream)); });
    if (!status_.ok()) handle_.reset();
    static_cast<void>(detail::finish(status_));
  }

  Status status() const { return status_; }
  segprior_context *handle() const { return handle_.get(); } /* for calls of the C interface */
  segprior_device device() const { return device_; }
  const Allocator &allocator() const { return allocator_; }

  /* Operators keep their memory: let the old stream's work end, or the new stream wait for it, before their
   * next call. */
  Status set_stream(void *stream) { return detail::finish(segprior_context_set_stream(handle(), stream)); }
  Status set_threads(int32_t threads) {
    return detail::finish(segprior_context_set_threads(handle(), threads));
  }
  /* Copies reports from the device to `host`. Waits for the stream. */
  Status read_info(const segprior_info *info, int64_t count, segprior_info *host) {
    return detail::finish(segprior_info_read_sync(handle(), info, count, host));
  }

 private:
  struct Destroy {
    void operator()(segprior_context *context) const { segprior_context_destroy(context); }
  };
  segprior_device device_;
  Allocator allocator_;
  std::unique_ptr<segprior_context, Destroy> handle_;
  Status status_;
};

namespace detail {

/* Device memory that is kept between calls and only ever replaced by a larger piece. */
class Buffer {
 public:
  explicit Buffer(Allocator allocator) : allocator_(std::move(allocator)) {}
  Buffer(Buffer &&other) noexcept { swap(other); }
  Buffer &operator=(Buffer &&other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer() { release(); }

  void *data() const { return bytes_ ? data_ : nullptr; }
  std::size_t bytes() const { return bytes_; }

  /* Room for `bytes`, whose content is not defined. */
  Status resize(std::size_t bytes) {
    if (bytes > capacity_) {
      release();
      data_ = allocator_.allocate(bytes);
      if (!data_)
        return Status(SEGPRIOR_ERROR_OUT_OF_MEMORY,
                      "allocator: " + std::to_string(bytes) + " bytes of the device's memory were refused");
      capacity_ = bytes;
    }
    bytes_ = bytes;
    return Status();
  }

 private:
  void swap(Buffer &other) noexcept {
    std::swap(allocator_, other.allocator_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(capacity_, other.capacity_);
  }
  void release() {
    if (data_) allocator_.release(data_, capacity_);
    data_ = nullptr;
    bytes_ = capacity_ = 0;
  }

  Allocator allocator_;
  void *data_ = nullptr;
  std::size_t bytes_ = 0, capacity_ = 0; /* asked for last; allocated */
};

/* What operators have in common. One that was moved from refuses every call. */
class Operator {
 protected:
  explicit Operator(const Context &context)
      : context_(context.handle()), workspace_(context.allocator()), saved_(context.allocator()) {}
  Operator(Operator &&other) noexcept
      : context_(std::exchange(other.context_, nullptr)),
        workspace_(std::move(other.workspace_)),
        saved_(std::move(other.saved_)),
        has_state_(std::exchange(other.has_state_, false)) {}
  Operator &operator=(Operator &&other) noexcept {
    if (this == &other) return *this;
    context_ = std::exchange(other.context_, nullptr);
    has_state_ = std::exchange(other.has_state_, false);
    workspace_ = std::move(other.workspace_);
    saved_ = std::move(other.saved_);
    return *this;
  }
  ~Operator() = default;

  /* A forward call. `size(size_t &workspace)` and `saved_size(size_t &saved)` ask the library, `call()`
   * computes. Unless it succeeds there is nothing for backward, which then refuses its call. */
  template <class Size, class SavedSize, class Call>
  Status run_forward(const Size &size, const SavedSize &saved_size, const Call &call) {
    std::size_t workspace = 0, saved = 0;
    has_state_ = false;
    const Status status = status_of(size(workspace))
                              .then([&] { return status_of(saved_size(saved)); })
                              .then([&] { return workspace_.resize(workspace); })
                              .then([&] { return saved_.resize(saved); })
                              .then([&] { return status_of(call()); });
    has_state_ = status.ok();
    return finish(status);
  }

  /* A backward call. The state has the layout of forward's options and inputs, and the library cannot see
   * whether they have changed since; where they have, the sizes mostly differ. */
  template <class Size, class SavedSize, class Call>
  Status run_backward(const Size &size, const SavedSize &saved_size, const Call &call) {
    if (!has_state_)
      return finish(Status(SEGPRIOR_ERROR_VALUE, "backward: needs a forward call that succeeded"));
    std::size_t saved = 0;
    const Status status = status_of(saved_size(saved)).then([&] {
      if (saved == saved_.bytes()) return Status();
      return Status(SEGPRIOR_ERROR_VALUE,
                    "backward: options and inputs must be those of the last forward call, which left " +
                        std::to_string(saved_.bytes()) + " bytes; these need " + std::to_string(saved));
    });
    return status.ok() ? run(size, call) : finish(status);
  }

  /* A call without state; `size(size_t &workspace)` asks the library. */
  template <class Size, class Call>
  Status run(const Size &size, const Call &call) {
    std::size_t workspace = 0;
    return finish(status_of(size(workspace)).then([&] { return workspace_.resize(workspace); }).then([&] {
      return status_of(call());
    }));
  }

  segprior_context *context_;
  Buffer workspace_;       /* scratch of any call */
  Buffer saved_;           /* what the last forward left for backward */
  bool has_state_ = false; /* the last forward succeeded; its state may have no bytes */
};

}  // namespace detail
}  // namespace SEGPRIOR_CPP_NAMESPACE
}  // namespace segprior
#endif
