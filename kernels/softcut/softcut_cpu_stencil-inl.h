// The matrix at the voxels of a vector, for highway code. Included once per SIMD target, after
// softcut_cpu_block-inl.h.
#if defined(SEGPRIOR_SOFTCUT_CPU_STENCIL_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SEGPRIOR_SOFTCUT_CPU_STENCIL_INL_H
#undef SEGPRIOR_SOFTCUT_CPU_STENCIL_INL_H
#else
#define SEGPRIOR_SOFTCUT_CPU_STENCIL_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace segprior::softcut {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// f(weight, neighbour) for every edge of the voxels of a block.
template <Stencil S, class T, class Block, class F>
HWY_INLINE void for_edges(const Span<T> &s, const Block &b, const T *x, F f) {
  f(b.next_edge(s.column), b.next(x));
  f(b.previous_edge(s.column), b.previous(x));
  if constexpr (S != Stencil::one) {
    const T *down = x + s.row_step[0], *up = x - s.row_step[1];
    f(b.at(s.row[0]), b.at(down));
    f(b.at(s.row[1]), b.at(up));
    if constexpr (S == Stencil::two_diagonal) {
      f(b.next_edge(s.diagonal[0]), b.next(down));
      f(b.previous_edge(s.diagonal[1]), b.previous(up));
      f(b.previous_edge(s.anti[0]), b.previous(down));
      f(b.next_edge(s.anti[1]), b.next(up));
    }
  }
  if constexpr (S == Stencil::three) {
    f(b.at(s.slice[0]), b.at(x + s.slice_step[0]));
    f(b.at(s.slice[1]), b.at(x - s.slice_step[1]));
  }
}

// The edges that start at the block's voxels (`starts`: f of these alone, each edge of the grid once), or end
// there.
template <Stencil S, class Block, class T, class F>
HWY_INLINE void for_weights(const Span<T> &s, const Block &b, bool starts, F f) {
  f(starts ? b.next_edge(s.column) : b.previous_edge(s.column));
  if constexpr (S != Stencil::one) f(b.at(s.row[starts ? 0 : 1]));
  if constexpr (S == Stencil::two_diagonal) {
    f(starts ? b.next_edge(s.diagonal[0]) : b.previous_edge(s.diagonal[1]));
    f(starts ? b.previous_edge(s.anti[0]) : b.next_edge(s.anti[1]));
  }
  if constexpr (S == Stencil::three) f(b.at(s.slice[starts ? 0 : 1]));
}

// A x of the block's voxels, in difference form: exact for constants.
template <Stencil S, class T, class Block>
HWY_INLINE Vec<T> apply_block(const Span<T> &s, const Block &b, const T *x) {
  const Vec<T> centre = b.at(x);
  Vec<T> sum = s.conductance ? hn::Mul(b.at(s.conductance), centre) : centre;
  for_edges<S>(s, b, x, [&](Vec<T> weight, Vec<T> neighbour) HWY_ATTR {
    sum = hn::MulAdd(weight, hn::Sub(centre, neighbour), sum);
  });
  return sum;
}

// f(std::integral_constant<Stencil, S>) for the span's stencil.
template <class T, class F>
HWY_INLINE auto with_stencil(const Span<T> &s, F f) {
  switch (s.stencil) {
    case Stencil::one:
      return f(std::integral_constant<Stencil, Stencil::one>{});
    case Stencil::two:
      return f(std::integral_constant<Stencil, Stencil::two>{});
    case Stencil::two_diagonal:
      return f(std::integral_constant<Stencil, Stencil::two_diagonal>{});
    default:
      return f(std::integral_constant<Stencil, Stencil::three>{});
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace segprior::softcut
HWY_AFTER_NAMESPACE();
#endif
