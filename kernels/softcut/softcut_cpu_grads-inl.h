// Row kernel of the gradients of edges and conductance, for highway code. Included once per SIMD target,
// after softcut_cpu_stencil-inl.h.
#if defined(SEGPRIOR_SOFTCUT_CPU_GRADS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SEGPRIOR_SOFTCUT_CPU_GRADS_INL_H
#undef SEGPRIOR_SOFTCUT_CPU_GRADS_INL_H
#else
#define SEGPRIOR_SOFTCUT_CPU_GRADS_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace segprior::softcut {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class T>
void gradients(const Span<T> &s, const T *l, const T *x, bool add, const EdgeRows<T> &out) {
  const Vec<T> zero = hn::Zero(Tag<T>());
  for_span<T>(s, [&](const auto &b) HWY_ATTR {
    const Vec<T> l_a = b.at(l), x_a = b.at(x);
    const auto minus = [&](Vec<T> l_change, Vec<T> x_change, Vec<T> old)
                           HWY_ATTR { return hn::NegMulAdd(l_change, x_change, old); };
    if (out.conductance) b.store(minus(l_a, x_a, add ? b.at(out.conductance) : zero), out.conductance);
    if (out.column)
      b.store_edge(
          minus(hn::Sub(l_a, b.next(l)), hn::Sub(x_a, b.next(x)), add ? b.next_edge(out.column) : zero),
          out.column);
    const T *l_down = l + s.row_step[0], *x_down = x + s.row_step[0];
    if (out.row)
      b.store(minus(hn::Sub(l_a, b.at(l_down)), hn::Sub(x_a, b.at(x_down)), add ? b.at(out.row) : zero),
              out.row);
    if (out.diagonal)
      b.store_edge(minus(hn::Sub(l_a, b.next(l_down)), hn::Sub(x_a, b.next(x_down)),
                         add ? b.next_edge(out.diagonal) : zero),
                   out.diagonal);
    // The entry of an anti-diagonal is that of its left column, where it does not start.
    if (out.anti)
      b.store_edge(minus(hn::Sub(b.next(l), b.at(l_down)), hn::Sub(b.next(x), b.at(x_down)),
                         add ? b.next_edge(out.anti) : zero),
                   out.anti);
    if (out.slice)
      b.store(minus(hn::Sub(l_a, b.at(l + s.slice_step[0])), hn::Sub(x_a, b.at(x + s.slice_step[0])),
                    add ? b.at(out.slice) : zero),
              out.slice);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace segprior::softcut
HWY_AFTER_NAMESPACE();
#endif
