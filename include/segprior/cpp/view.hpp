/* libsegprior in C++: views of the caller's memory. Part of segprior.hpp. */
#ifndef SEGPRIOR_CPP_VIEW_HPP
#define SEGPRIOR_CPP_VIEW_HPP

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <string>
#include <type_traits>
#include <utility>

#include "segprior/core.h"
#include "segprior/cpp/status.hpp"

namespace segprior {
inline namespace SEGPRIOR_CPP_NAMESPACE {

inline constexpr segprior_device kCpu{SEGPRIOR_CPU, 0};

namespace detail {

template <class T>
constexpr int32_t dtype_of() {
  constexpr bool signed_integer = std::is_integral_v<T> && std::is_signed_v<T>;
  if (std::is_same_v<T, float>) return SEGPRIOR_FLOAT32;
  if (std::is_same_v<T, double>) return SEGPRIOR_FLOAT64;
  if (std::is_same_v<T, unsigned char> || std::is_same_v<T, bool>) return SEGPRIOR_UINT8;
  if (signed_integer && sizeof(T) == 4) return SEGPRIOR_INT32;
  if (signed_integer && sizeof(T) == 8) return SEGPRIOR_INT64;
  return 0;
}

/* Of a pointer, itself; of a container or an array, its first element's. */
template <class T>
T *data_of(T *pointer) {
  return pointer;
}
template <class Container, class = std::enable_if_t<!std::is_pointer_v<Container>>>
auto data_of(Container &container) -> decltype(std::data(container)) {
  return std::data(container);
}

}  // namespace detail

/* The dtype of elements of type T. For a 16-bit type of your own, before its first use:
 *   template <> struct segprior::DType<half> { static constexpr int32_t value = SEGPRIOR_FLOAT16; }; */
template <class T>
struct DType {
  static constexpr int32_t value = detail::dtype_of<T>(); /* 0: none */
};

/* Extents of a tensor: {1, 2, 6, 8}, or a container of int64_t. Of too many of them ndim is
 * SEGPRIOR_MAX_NDIM + 1, which the call refuses. */
struct Shape {
  int64_t extents[SEGPRIOR_MAX_NDIM] = {};
  int32_t ndim = 0;

  Shape() = default;
  Shape(std::initializer_list<int64_t> list) : Shape(list.begin(), list.size()) {}
  Shape(const int64_t *first, std::size_t count) {
    for (; count > 0 && ndim < SEGPRIOR_MAX_NDIM; --count) extents[ndim++] = *first++;
    if (count > 0) ++ndim;
  }
  template <class C, class = std::enable_if_t<std::is_same_v<typename C::value_type, int64_t>>>
  Shape(const C &container) : Shape(std::data(container), std::size(container)) {}

  /* Their product; the largest number if that is too small for it. 0 where the call will refuse the shape. */
  uint64_t elements() const {
    uint64_t product = 1;
    if (ndim > SEGPRIOR_MAX_NDIM) return 0;
    for (int32_t k = 0; k < ndim; ++k)
      if (extents[k] <= 0) return 0;
    for (int32_t k = 0; k < ndim; ++k) {
      const uint64_t extent = static_cast<uint64_t>(extents[k]);
      if (product > UINT64_MAX / extent) return UINT64_MAX;
      product *= extent;
    }
    return product;
  }
};

/* Read-only memory with its shape, dtype and device; a default-constructed one is absent. Whoever owns the
 * memory keeps it until the calls that use it have ended. */
class View {
 public:
  View() = default;

  /* `memory`: a pointer, or a named container or array (std::vector, std::array, std::span, T[n]), whose size
   * is compared with the shape's: SEGPRIOR_ERROR_SHAPE if it is too small. The dtype is that of its elements.
   */
  template <class Memory>
  View(Memory &&memory, const Shape &shape, segprior_device device = kCpu) {
    static_assert(std::is_lvalue_reference_v<Memory> || std::is_pointer_v<Memory>,
                  "a view of a temporary would dangle: give the container a name");
    using Value = std::remove_cv_t<Element<Memory>>;
    static_assert(DType<Value>::value != 0, "no dtype for this element type: see segprior::DType");
    if constexpr (std::is_pointer_v<std::remove_reference_t<Memory>>) {
      set(memory, DType<Value>::value, shape, device);
    } else {
      const uint64_t size = std::size(memory), wanted = shape.elements();
      missing_ = size < wanted ? wanted - size : 0;
      set(missing_ ? nullptr : std::data(memory), DType<Value>::value, shape, device);
      static_cast<void>(detail::finish(status()));
    }
  }
  /* Elements that have no C++ type here, e.g. SEGPRIOR_BFLOAT16. (A template, because braces never deduce
   * one: {data, {1}, {SEGPRIOR_CUDA, 0}} has to mean shape and device.) */
  template <class Code, class = std::enable_if_t<std::is_convertible_v<Code, int32_t>>>
  View(const void *data, Code dtype, const Shape &shape, segprior_device device = kCpu) {
    set(data, static_cast<int32_t>(dtype), shape, device);
  }
  /* As segprior_tensor_from_dlpack fills it; strides stay borrowed. */
  explicit View(const segprior_tensor &tensor) : tensor_(tensor), present_(true) {
    /* A ndim out of range stays for the call to refuse. */
    if (tensor.ndim > 0 && tensor.shape) shape_ = Shape(tensor.shape, static_cast<std::size_t>(tensor.ndim));
    tensor_.shape = tensor.shape ? shape_.extents : nullptr;
  }
  View(const View &other) noexcept { *this = other; }
  View &operator=(const View &other) noexcept {
    tensor_ = other.tensor_;
    shape_ = other.shape_;
    present_ = other.present_;
    missing_ = other.missing_;
    if (tensor_.shape) tensor_.shape = shape_.extents; /* not the other's */
    return *this;
  }

  bool present() const { return present_; }
  const Shape &shape() const { return shape_; }
  int32_t dtype() const { return tensor_.dtype; }

  /* Not ok if the container was too small; every call then refuses the view, because its data is NULL. */
  Status status() const {
    if (missing_ == 0) return Status();
    return Status(SEGPRIOR_ERROR_SHAPE, "view: the shape has " + std::to_string(shape_.elements()) +
                                            " elements, the container " +
                                            std::to_string(shape_.elements() - missing_));
  }

  /* The C tensor, valid while this view lives; NULL if absent. */
  const segprior_tensor *c() const { return present_ ? &tensor_ : nullptr; }

 protected:
  template <class Memory>
  using Element = std::remove_pointer_t<decltype(detail::data_of(std::declval<Memory &>()))>;

 private:
  void set(const void *data, int32_t dtype, const Shape &shape, segprior_device device) {
    shape_ = shape;
    /* The C tensor serves inputs and outputs; MutableView is what keeps the two apart here. */
    tensor_ = {const_cast<void *>(data), device, dtype, shape.ndim, shape_.extents, nullptr, 0};
    present_ = true;
  }

  segprior_tensor tensor_{};
  Shape shape_;
  bool present_ = false;
  uint64_t missing_ = 0; /* elements that the container lacks */
};

/* Memory that a call writes. */
class MutableView : public View {
 public:
  MutableView() = default;
  template <class Memory>
  MutableView(Memory &&memory, const Shape &shape, segprior_device device = kCpu)
      : View(std::forward<Memory>(memory), shape, device) {
    static_assert(!std::is_const_v<Element<Memory>>, "this memory is written: it cannot be const");
  }
  template <class Code, class = std::enable_if_t<std::is_convertible_v<Code, int32_t>>>
  MutableView(void *data, Code dtype, const Shape &shape, segprior_device device = kCpu)
      : View(data, dtype, shape, device) {}
  explicit MutableView(const segprior_tensor &tensor) : View(tensor) {}
};

/* A view of a DLPack `DLTensor *`, which has to outlive it. */
inline Status from_dlpack(const void *dl_tensor, MutableView &out) {
  segprior_tensor tensor;
  const Status status = detail::status_of(segprior_tensor_from_dlpack(dl_tensor, &tensor));
  if (status.ok()) out = MutableView(tensor);
  return detail::finish(status);
}

}  // namespace SEGPRIOR_CPP_NAMESPACE
}  // namespace segprior
#endif
