// segprior.hpp: softmax, SoftCut, losses and proposals give the same bits as the C calls with the same
// arguments, on every device. The other wrappers: segprior_hpp_scores_test.cpp.
#include "tests/capi/segprior_hpp.h"

#include <doctest/doctest.h>

#include "tests/cases/cases.h"
#include "tests/cases/losses_cases.h"
#include "tests/cases/proposals_cases.h"
#include "tests/cases/softcut_cases.h"
#include "tests/support/losses_call.h"
#include "tests/support/proposals_call.h"

using namespace segprior;
using namespace segprior::test;

namespace {

template <class Options, class Opts>
void assign(Options &options, const Opts &opts) {
  static_cast<Opts &>(options) = opts;
}

template <class Members, class Struct>
void assign_edges(Members &to, const Struct &from) {
  for (int m = 0; m < 3; ++m) to.edges[m] = output_of(from.edges[m]);
  for (int m = 0; m < 2; ++m) to.diagonals[m] = output_of(from.diagonals[m]);
}

void check_softmax(const Case &c, int32_t mode, Device &device) {
  INFO(c.text() << ", mode " << mode);
  const Context context = context_of(device, std::make_shared<Memory>());
  SoftmaxCall call(device, make_problem(c), settings_of(c));
  Softmax op(context);
  assign(op.options, call.opts);
  const segprior_softmax_inputs &in = call.inputs;
  op.inputs.features = view_of(in.features);
  op.inputs.eps = view_of(in.eps);
  op.inputs.tv_lam = view_of(in.tv_lam);
  op.inputs.tv_tau = view_of(in.tv_tau);
  op.inputs.tv_edge = view_of(in.tv_edge);
  op.inputs.volume = view_of(in.volume);
  op.inputs.volume_lower = view_of(in.volume_lower);
  op.inputs.volume_upper = view_of(in.volume_upper);
  op.inputs.init_tv_dual = view_of(in.init_tv_dual);
  op.inputs.init_volume_dual = view_of(in.init_volume_dual);
  op.inputs.td_lam = view_of(in.td_lam);
  op.inputs.td_sigma = view_of(in.td_sigma);
  op.inputs.td_kernel = view_of(in.td_kernel);
  op.inputs.td_edge = view_of(in.td_edge);
  op.inputs.star_center = view_of(in.star_center);
  op.inputs.star_tau = view_of(in.star_tau);
  op.inputs.mask = view_of(in.mask);
  op.inputs.init_star_dual = view_of(in.init_star_dual);
  op.outputs = {output_of(call.outputs.u), output_of(call.outputs.tv_dual),
                output_of(call.outputs.volume_dual), output_of(call.outputs.star_dual), call.outputs.info};

  Written outputs;
  outputs.add(call.u).add(call.tv_dual).add(call.volume_dual).add(call.star_dual).add(call.info.get());
  check_same(
      device, "softmax forward", outputs, [&] { return call.forward(); }, [&] { op.forward(); });

  Written gradients;
  for (const auto &gradient : call.gradient_list(mode)) gradients.add(&gradient.second->memory());
  if (mode == SEGPRIOR_BACKWARD_IMPLICIT) gradients.add(call.backward_info.get());
  const ref::Array grad_u = make_grad_u(c);
  check_same(
      device, "softmax backward", gradients, [&] { return call.backward(mode, grad_u); },
      [&] {
        const segprior_softmax_grads &g = call.grads;  // as the C call has just used them
        op.options.backward_mode = mode;
        op.grads = {output_of(g.features),     output_of(g.eps),
                    output_of(g.init_eps),     output_of(g.tv_lam),
                    output_of(g.tv_tau),       output_of(g.tv_edge),
                    output_of(g.volume),       output_of(g.volume_lower),
                    output_of(g.volume_upper), output_of(g.td_lam),
                    output_of(g.td_sigma),     output_of(g.td_kernel),
                    output_of(g.td_edge),      output_of(g.star_tau),
                    output_of(g.star_center),  g.info};
        op.backward(view_of(call.grad_u->view()));
      });
}

void check_softcut(const SoftcutCase &c, Device &device) {
  INFO(c.text());
  const Context context = context_of(device, std::make_shared<Memory>());
  SoftcutCall call(device, make_problem(c), settings_of(c));
  Softcut op(context);
  assign(op.options, call.opts);
  assign_edges(op.inputs, call.inputs);
  op.inputs.scores = view_of(call.inputs.scores);
  op.inputs.conductance = view_of(call.inputs.conductance);
  op.inputs.init = view_of(call.inputs.init);
  op.outputs = {output_of(call.outputs.x), call.outputs.info};
  check_same(
      device, "softcut forward", Written().add(call.x).add(call.info.get()), [&] { return call.forward(); },
      [&] { op.forward(); });

  Written gradients;
  for (const auto &gradient : call.gradient_list()) gradients.add(&gradient.second->memory());
  gradients.add(call.backward_info.get());
  const ref::Array grad_x = make_grad_x(c);
  check_same(
      device, "softcut backward", gradients, [&] { return call.backward(grad_x); },
      [&] {
        assign_edges(op.grads, call.grads);
        op.grads.scores = output_of(call.grads.scores);
        op.grads.conductance = output_of(call.grads.conductance);
        op.grads.info = call.grads.info;
        op.backward(view_of(call.grad_x->view()));
      });

  Written second;
  for (const auto &gradient : call.second_list()) second.add(&gradient.second->memory());
  second.add(call.second_info.get());
  const ref::Array l = call.grad_scores->get();
  const ref::softcut::Gradients cotangents = make_cotangents(c);
  check_same(
      device, "softcut double backward", second, [&] { return call.double_backward(l, cotangents); },
      [&] {
        assign_edges(op.cotangents, call.cotangents);
        op.cotangents.scores = view_of(call.cotangents.scores);
        op.cotangents.conductance = view_of(call.cotangents.conductance);
        assign_edges(op.second_grads, call.second_grads);
        op.second_grads.grad_x = output_of(call.second_grads.grad_x);
        op.second_grads.scores = output_of(call.second_grads.scores);
        op.second_grads.conductance = output_of(call.second_grads.conductance);
        op.second_grads.info = call.second_grads.info;
        op.double_backward(view_of(call.l->view()));
      });

  int64_t entries = 0, entries_of_c = 0;
  REQUIRE(segprior_softcut_csr_size(device.context(), &call.inputs, &entries_of_c) == SEGPRIOR_OK);
  op.csr_size(entries);
  REQUIRE(entries == entries_of_c);
  const ref::softcut::Problem p = make_problem(c);
  DeviceArray row_offsets(device.which(), static_cast<size_t>(p.voxels() + 1) * sizeof(int32_t)),
      columns(device.which(), static_cast<size_t>(entries) * sizeof(int32_t));
  Tensor values(device.which(), c.dtype(), {p.matrices(), entries});
  int32_t *offsets_data = static_cast<int32_t *>(row_offsets.data());
  int32_t *columns_data = static_cast<int32_t *>(columns.data());
  check_same(
      device, "softcut csr", Written().add(&row_offsets).add(&columns).add(&values.memory()),
      [&] {
        return segprior_softcut_csr(device.context(), &call.inputs, offsets_data, columns_data,
                                    values.view());
      },
      [&] { op.csr(offsets_data, columns_data, MutableView(*values.view())); });
}

void check_loss(const LossCase &c, Device &device) {
  INFO(c.text());
  const Context context = context_of(device, std::make_shared<Memory>());
  LossCall call(device, make_problem(c), settings_of(c));
  Loss op(context);
  assign(op.options, call.opts);
  const segprior_loss_inputs &in = call.inputs;
  op.inputs = {view_of(in.scores),     view_of(in.labels),     view_of(in.target),
               view_of(in.mask),       view_of(in.labelled),   view_of(in.class_weights),
               view_of(in.size_lower), view_of(in.size_upper), view_of(in.size_groups)};
  op.outputs = {output_of(call.outputs.total), output_of(call.outputs.terms), output_of(call.outputs.items),
                output_of(call.outputs.voxels), call.outputs.info};
  Written outputs;
  outputs.add(call.total).add(call.terms).add(call.items).add(call.voxels).add(call.info.get());
  check_same(
      device, "loss forward", outputs, [&] { return call.forward(); }, [&] { op.forward(); });

  Written gradients;
  for (const auto &gradient : call.gradient_list()) gradients.add(&gradient.second->memory());
  const ref::losses::Cotangents cotangents = make_cotangents(c);
  check_same(
      device, "loss backward", gradients, [&] { return call.backward(cotangents); },
      [&] {
        op.cotangents = {view_of(call.cotangents.total), view_of(call.cotangents.terms),
                         view_of(call.cotangents.items), view_of(call.cotangents.voxels)};
        op.grads = {output_of(call.grads.scores), output_of(call.grads.class_weights),
                    output_of(call.grads.size_lower), output_of(call.grads.size_upper)};
        op.backward();
      });
}

}  // namespace

TEST_CASE("C++: softmax as the C call [small]") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    const Case everything = Case({7, 9}, 3, 2)
                                .init_eps(0.7)
                                .tv(0.3, 0.1)
                                .edge(Case::Edge::per_image)
                                .equal()
                                .td(0.2)
                                .td_edge(Case::Edge::shared)
                                .star({0, 2}, 0.1)
                                .mask(Case::Mask::shared)
                                .warm_start()
                                .device_scalars();
    check_softmax(everything, SEGPRIOR_BACKWARD_UNROLLED, device);
    check_softmax(everything, SEGPRIOR_BACKWARD_LAST, device);
    const Case boxes = Case({7, 9}, 3, 2).tv(0.3).volumes(Case::Volumes::box).td(0.2).td_kernel({3, 3}).f32();
    check_softmax(boxes, SEGPRIOR_BACKWARD_UNROLLED, device);
    check_softmax(boxes, SEGPRIOR_BACKWARD_IMPLICIT, device);
  }
}

TEST_CASE("C++: softcut as the C calls [small]") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    check_softcut(SoftcutCase({5, 7}, 2, 2).diagonals().conductance(2).init().small(), device);
    check_softcut(SoftcutCase({3, 4, 5}, 2).shared().f32().small(), device);
    check_softcut(SoftcutCase({9, 11}, 1).solver(SoftcutCase::Solver::multigrid).small(), device);
  }
}

TEST_CASE("C++: losses as the C calls [small]") {
  using Rows = LossCase::Rows;
  for (segprior_device which : all_devices()) {
    Device device(which);
    check_loss(LossCase({5, 7}, 3, 2)
                   .mask(Rows::each)
                   .labelled(Rows::shared)
                   .class_weights(5)
                   .bounds(Rows::each, Rows::each)
                   .groups()
                   .incoming(LossCase::kTotal | LossCase::kTerms | LossCase::kItems),
               device);
    check_loss(LossCase({5, 7}, 3, 2)
                   .f32()
                   .target(LossCase::Target::soft)
                   .incoming(LossCase::kTotal | LossCase::kVoxels),
               device);

    const Context context = context_of(device, std::make_shared<Memory>());
    Tensor volumes(which, SEGPRIOR_INT64, {2, 3}, {0, 40, 60, 10, 20, 70}),
        lower(which, SEGPRIOR_FLOAT64, {2, 3}), upper(which, SEGPRIOR_FLOAT64, {2, 3});
    check_same(
        device, "size bounds", Written().add(&lower.memory()).add(&upper.memory()),
        [&] {
          return segprior_size_bounds(device.context(), SEGPRIOR_BOUNDS_COMMON, volumes.view(), 100, 0.8, 1.3,
                                      lower.view(), upper.view());
        },
        [&] {
          size_bounds(context, SEGPRIOR_BOUNDS_COMMON, View(*volumes.view()), 100, 0.8, 1.3,
                      MutableView(*lower.view()), MutableView(*upper.view()));
        });
  }
}

TEST_CASE("C++: proposals as the C call [small]") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    const ProposalCase c{{5, 7}, 3, 2, ProposalBounds::boxes, 3, SEGPRIOR_FLOAT32, true, false};
    ProposalSettings settings;
    settings.dtype = c.dtype;
    ProposalCall call(device, c.problem(), settings);
    const Context context = context_of(device, std::make_shared<Memory>());
    Proposal op(context);
    assign(op.options, call.opts);
    op.inputs = {view_of(call.inputs.logits), view_of(call.inputs.lower), view_of(call.inputs.upper),
                 view_of(call.inputs.mask)};
    op.outputs = {output_of(call.outputs.proposal), output_of(call.outputs.dual),
                  output_of(call.outputs.volume), call.outputs.info};
    check_same(
        device, "proposal", Written().add(call.proposal).add(call.dual).add(call.volume).add(call.info.get()),
        [&] { return call.forward(); }, [&] { op.forward(); });
  }
}
