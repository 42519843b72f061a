// What the row kernels are made of: loops over columns in vectors, sums, and the pieces of a softmax over one
// block of columns. Included once per SIMD target. The arithmetic of a voxel does not depend on where a
// vector starts, so neither do results on the split of a row into blocks.
#if defined(SEGPRIOR_SOFTMAX_CPU_BLOCK_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SEGPRIOR_SOFTMAX_CPU_BLOCK_INL_H
#undef SEGPRIOR_SOFTMAX_CPU_BLOCK_INL_H
#else
#define SEGPRIOR_SOFTMAX_CPU_BLOCK_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace segprior::softmax {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// f(d, x) over columns [begin, end): whole vectors, then groups of 4, then single lanes. Never reads past the
// end.
template <class T, class F>
HWY_INLINE void for_columns(int64_t begin, int64_t end, F f) {
  const hn::ScalableTag<T> d;
  const hn::CappedTag<T, 4> d4;
  const hn::CappedTag<T, 1> d1;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), lanes4 = static_cast<int64_t>(hn::Lanes(d4));
  int64_t x = begin;
  for (; x + lanes <= end; x += lanes) f(d, x);
  for (; x + lanes4 <= end; x += lanes4) f(d4, x);
  for (; x < end; ++x) f(d1, x);
}

// Adds vectors of any width up to a double total: whole vectors lane by lane first, then once.
template <class T>
class Total {
 public:
  HWY_INLINE Total() : lanes_(hn::Zero(hn::ScalableTag<T>())), tail_(0) {}

  template <class D, class V>
  HWY_INLINE void add(D d, V value) {
    if constexpr (hn::MaxLanes(D()) == hn::MaxLanes(hn::ScalableTag<T>()))
      lanes_ = hn::Add(lanes_, value);
    else
      tail_ += hn::GetLane(hn::SumOfLanes(d, value));
  }
  HWY_INLINE double get() const { return hn::GetLane(hn::SumOfLanes(hn::ScalableTag<T>(), lanes_)) + tail_; }

 private:
  hn::Vec<hn::ScalableTag<T>> lanes_;
  double tail_;
};

// Asks for the same column of the next row. Rows of a class follow one another in memory, but the classes'
// rows are worked through in turn: the hardware's prefetcher starts anew at each of these short runs and
// comes too late. (A third of the time at 21 classes.) May point past the end, which prefetching forgives.
template <class T>
HWY_INLINE void prefetch_next_row(const RowShape<T> &s, const T *here) {
  __builtin_prefetch(here + s.columns);
}

template <class T>
HWY_INLINE void fill(int64_t n, T value, T *out) {
  for_columns<T>(0, n, [&](auto d, int64_t x) HWY_ATTR { hn::StoreU(hn::Set(d, value), d, out + x); });
}

// The two row blocks of all classes and the three rows in a thread's scratch.
template <class T>
struct Scratch {
  int64_t block;
  T *values, *more, *row[3], *rest;

  explicit Scratch(const RowShape<T> &s) : block(block_columns<T>(s.classes)) {
    values = s.scratch;
    more = values + block * s.classes;
    T *rows = more + block * s.classes;
    for (T *&r : row) r = rows, rows += block;
    rest = rows;
  }
};

// values[i] <- exp(values[i] - max), sum <- their sum over the classes; `max` holds the maximum over the
// classes.
template <class T>
HWY_INLINE void exponentials(int classes, int64_t n, int64_t block, T *values, const T *max, T *sum) {
  fill<T>(n, 0, sum);
  for (int i = 0; i < classes; ++i) {
    T *v = values + i * block;
    for_columns<T>(0, n, [&](auto d, int64_t x) HWY_ATTR {
      const auto e =
          segprior::HWY_NAMESPACE::exp_nonpositive(d, hn::Sub(hn::LoadU(d, v + x), hn::LoadU(d, max + x)));
      hn::StoreU(e, d, v + x);
      hn::StoreU(hn::Add(hn::LoadU(d, sum + x), e), d, sum + x);
    });
  }
}

// row <- 1 / row, and 0 at masked voxels: the factor that makes exponentials a softmax. `valid` as in
// RowShape, at the columns of the row.
template <class T>
HWY_INLINE void reciprocal(int64_t n, T *row, const T *valid) {
  if (valid) {
    // Selected, not multiplied: with every class excluded the sum is 0.
    for_columns<T>(0, n, [&](auto d, int64_t x) HWY_ATTR {
      const auto inverse = hn::Div(hn::Set(d, T{1}), hn::LoadU(d, row + x));
      const auto on = hn::Gt(hn::LoadU(d, valid + x), hn::Zero(d));
      hn::StoreU(hn::IfThenElseZero(on, inverse), d, row + x);
    });
    return;
  }
  for_columns<T>(0, n, [&](auto d, int64_t x) HWY_ATTR {
    hn::StoreU(hn::Div(hn::Set(d, T{1}), hn::LoadU(d, row + x)), d, row + x);
  });
}
template <class T>
HWY_INLINE const T *valid_from(const RowShape<T> &s, int64_t column) {
  return s.valid ? s.valid + column : nullptr;
}

// values[i] <- in_i * scale + shift_i (null: 0) of one block; max <- maximum over the classes, finite even
// where every class is excluded (shift -inf).
template <class T>
HWY_INLINE void load_logits(const RowShape<T> &s, int64_t n, int64_t block, const T *in, T scale,
                            const T *shift, T *values, T *max) {
  fill<T>(n, std::numeric_limits<T>::lowest(), max);
  for (int i = 0; i < s.classes; ++i) {
    const T *from = in + i * s.voxels;
    T *to = values + i * block;
    const T offset = shift ? shift[i] : 0;
    for_columns<T>(0, n, [&](auto d, int64_t x) HWY_ATTR {
      prefetch_next_row(s, from + x);
      const auto z = hn::MulAdd(hn::LoadU(d, from + x), hn::Set(d, scale), hn::Set(d, offset));
      hn::StoreU(z, d, to + x);
      hn::StoreU(hn::Max(hn::LoadU(d, max + x), z), d, max + x);
    });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace segprior::softmax
HWY_AFTER_NAMESPACE();
#endif
