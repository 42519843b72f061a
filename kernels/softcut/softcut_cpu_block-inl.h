// The vectors of a row, for highway code: whole ones, whose neighbours are all there, and those at the ends
// of a row. Included once per SIMD target.
#if defined(SEGPRIOR_SOFTCUT_CPU_BLOCK_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SEGPRIOR_SOFTCUT_CPU_BLOCK_INL_H
#undef SEGPRIOR_SOFTCUT_CPU_BLOCK_INL_H
#else
#define SEGPRIOR_SOFTCUT_CPU_BLOCK_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace segprior::softcut {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class T>
using Tag = hn::ScalableTag<T>;
template <class T>
using Vec = hn::Vec<Tag<T>>;

// Some lanes of a vector, [first, last). Never touches memory of others.
template <class T>
class Lanes {
 public:
#if HWY_MEM_OPS_MIGHT_FAULT
  HWY_INLINE Lanes(int64_t first, int64_t last) : first_(first), last_(last) {}
  HWY_INLINE Vec<T> load(const T *from) const {
    HWY_ALIGN T lanes[hn::MaxLanes(Tag<T>())] = {};
    for (int64_t k = first_; k < last_; ++k) lanes[k] = from[k];
    return hn::Load(Tag<T>(), lanes);
  }
  HWY_INLINE void store(Vec<T> value, T *to) const {
    HWY_ALIGN T lanes[hn::MaxLanes(Tag<T>())];
    hn::Store(value, Tag<T>(), lanes);
    for (int64_t k = first_; k < last_; ++k) to[k] = lanes[k];
  }
  HWY_INLINE hn::Mask<Tag<T>> mask() const {
    const Tag<T> d;
    return hn::AndNot(hn::FirstN(d, static_cast<size_t>(first_)), hn::FirstN(d, static_cast<size_t>(last_)));
  }

 private:
  int64_t first_, last_;
#else
  HWY_INLINE Lanes(int64_t first, int64_t last)
      : mask_(hn::AndNot(hn::FirstN(Tag<T>(), static_cast<size_t>(first)),
                         hn::FirstN(Tag<T>(), static_cast<size_t>(last)))) {}
  HWY_INLINE Vec<T> load(const T *from) const { return hn::MaskedLoad(mask_, Tag<T>(), from); }
  HWY_INLINE void store(Vec<T> value, T *to) const { hn::BlendedStore(value, mask_, Tag<T>(), to); }
  HWY_INLINE hn::Mask<Tag<T>> mask() const { return mask_; }

 private:
  hn::Mask<Tag<T>> mask_;
#endif
};

// A vector whose voxels, and the edges along the row on both sides, all exist. `c` is the first voxel's index
// in arrays of voxels, `e` in arrays of edges that have one column less. `next_edge` is the entry of the edge
// to the next column, `previous_edge` that to the previous one.
template <class T>
struct Whole {
  int64_t c, e;
  HWY_INLINE Vec<T> at(const T *row) const { return hn::LoadU(Tag<T>(), row + c); }
  HWY_INLINE Vec<T> next(const T *row) const { return hn::LoadU(Tag<T>(), row + c + 1); }
  HWY_INLINE Vec<T> previous(const T *row) const { return hn::LoadU(Tag<T>(), row + c - 1); }
  HWY_INLINE Vec<T> next_edge(const T *row) const { return hn::LoadU(Tag<T>(), row + e); }
  HWY_INLINE Vec<T> previous_edge(const T *row) const { return hn::LoadU(Tag<T>(), row + e - 1); }
  HWY_INLINE void store(Vec<T> value, T *row) const { hn::StoreU(value, Tag<T>(), row + c); }
  HWY_INLINE void store_edge(Vec<T> value, T *row) const { hn::StoreU(value, Tag<T>(), row + e); }
  // `other` in lanes without a voxel.
  HWY_INLINE Vec<T> or_else(Vec<T> value, T) const { return value; }
};

// A vector with some voxels; whatever does not exist is 0.
template <class T>
struct Part {
  int64_t c, e;
  Lanes<T> voxels, has_next, has_previous;
  HWY_INLINE Vec<T> at(const T *row) const { return voxels.load(row + c); }
  HWY_INLINE Vec<T> next(const T *row) const { return has_next.load(row + c + 1); }
  HWY_INLINE Vec<T> previous(const T *row) const { return has_previous.load(row + c - 1); }
  HWY_INLINE Vec<T> next_edge(const T *row) const { return has_next.load(row + e); }
  HWY_INLINE Vec<T> previous_edge(const T *row) const { return has_previous.load(row + e - 1); }
  HWY_INLINE void store(Vec<T> value, T *row) const { voxels.store(value, row + c); }
  HWY_INLINE void store_edge(Vec<T> value, T *row) const { has_next.store(value, row + e); }
  HWY_INLINE Vec<T> or_else(Vec<T> value, T other) const {
    return hn::IfThenElse(voxels.mask(), value, hn::Set(Tag<T>(), other));
  }
};

// f(block) over a span.
template <class T, class F>
HWY_INLINE void for_span(const Span<T> &s, F f) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(Tag<T>())), begin = s.begin, end = s.end;
  const int64_t last = s.columns - 1, whole_end = end < last ? end : last;
  const auto part = [&](int64_t c, int64_t voxel, int64_t edge) HWY_ATTR {
    const int64_t left = end - c, count = left < lanes ? left : lanes, next = last - c;
    f(Part<T>{voxel + c, edge + c, {0, count}, {0, next < count ? next : count}, {c == 0 ? 1 : 0, count}});
  };
  for (int64_t line = 0, voxel = 0, edge = 0; line < s.lines; ++line, voxel += last + 1, edge += last) {
    int64_t c = begin;
    if (c == 0) {
      part(c, voxel, edge);
      c += lanes;
    }
    for (; c + lanes <= whole_end; c += lanes) f(Whole<T>{voxel + c, edge + c});
    for (; c < end; c += lanes) part(c, voxel, edge);
  }
}

// f(block) over n elements without neighbours.
template <class T, class F>
HWY_INLINE void for_elements(int64_t n, F f) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(Tag<T>()));
  int64_t c = 0;
  for (; c + lanes <= n; c += lanes) f(Whole<T>{c, 0});
  if (c < n) f(Part<T>{c, 0, {0, n - c}, {0, 0}, {0, 0}});
}

template <class T>
HWY_INLINE double sum_of(Vec<T> value) {
  return static_cast<double>(hn::GetLane(hn::SumOfLanes(Tag<T>(), value)));
}

}  // namespace HWY_NAMESPACE
}  // namespace segprior::softcut
HWY_AFTER_NAMESPACE();
#endif
