/* clang-format off */
/* libsegprior in C++17: the C interface with owning handles, views of your memory and one way to fail.
 *
 *   std::vector<float> o(2 * 6 * 8), u(o.size()), volume{12, 36};
 *   segprior::Context context;                     // the CPU, all its threads
 *   segprior::Softmax op(context);
 *   op.options.tv = 1;                             // fields, defaults and rules: the C headers
 *   op.inputs.features = {o, {1, 2, 6, 8}};        // a view: memory that stays yours, and its shape
 *   op.inputs.volume = {volume, {1, 2}};
 *   op.outputs.u = {u, {1, 2, 6, 8}};
 *   op.forward();
 *
 * Header only; beneath it are the functions of segprior.h alone, whose contract holds here word for word.
 * Four things are to know:
 *
 *   Context     a device with its stream or threads. Create one per thread; it outlives its operators.
 *   View        read-only memory with shape, dtype (deduced) and device; MutableView: memory that is written.
 *   operators   Softmax, Softcut, Loss, Proposal, Components: set options, inputs, outputs, then forward();
 *               where there are derivatives, set grads, then backward(). An operator owns the workspace and
 *               the state that forward leaves for backward, and uses both again from call to call: keep it.
 *               Without state, and plain functions: size_bounds, confusion, confusion_scores,
 *               label_geometry, csr_solve.
 *   Status      what every call returns. With exceptions a call that fails throws segprior::Error instead.
 *               Without (-fno-exceptions, or SEGPRIOR_NO_EXCEPTIONS defined) it is [[nodiscard]]. The text
 *               names argument, value and rule, as segprior_last_error() does. A constructor that fails
 *               throws too, or leaves an object whose status() tells and which every later call refuses.
 *
 * On a CUDA device views hold device pointers, and Context takes an Allocator for the operators' memory; the
 * header itself needs no CUDA.
 */
/* clang-format on */
#ifndef SEGPRIOR_HPP
#define SEGPRIOR_HPP

#include "segprior/cpp/csr.hpp"
#include "segprior/cpp/losses.hpp"
#include "segprior/cpp/metrics.hpp"
#include "segprior/cpp/proposals.hpp"
#include "segprior/cpp/softcut.hpp"
#include "segprior/cpp/softmax.hpp"

#endif
