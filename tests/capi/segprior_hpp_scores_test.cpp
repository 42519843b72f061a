// segprior.hpp: scores, components and the CSR solve give the same bits as the C calls with the same
// arguments.
#include <doctest/doctest.h>

#include "tests/capi/segprior_hpp.h"
#include "tests/support/csr_call.h"
#include "tests/support/random.h"

using namespace segprior;
using namespace segprior::test;

TEST_CASE("C++: scores and components as the C calls [small]") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    const Context context = context_of(device, std::make_shared<Memory>());
    Random random(7);
    const std::vector<int64_t> plane{2, 5, 7}, square{2, 3, 3}, of_class{2, 3};
    Tensor labels(which, SEGPRIOR_UINT8, plane, random.array(70, 0, 3.9)),
        scores(which, SEGPRIOR_FLOAT32, {2, 3, 5, 7}, random.array(210, -1, 1)),
        mask(which, SEGPRIOR_UINT8, plane, random.array(70, 0, 1.9)), matrix(which, SEGPRIOR_INT64, square),
        invalid(which, SEGPRIOR_INT64, {2});
    segprior_confusion_inputs inputs{};
    inputs.struct_size = sizeof inputs;
    inputs.labels = labels.view();
    inputs.scores = scores.view();
    inputs.mask = mask.view();
    check_same(
        device, "confusion", Written().add(&matrix.memory()).add(&invalid.memory()),
        [&] { return segprior_confusion(device.context(), &inputs, 255, matrix.view(), invalid.view()); },
        [&] {
          confusion(context, {View(*labels.view()), {}, View(*scores.view()), View(*mask.view())}, 255,
                    MutableView(*matrix.view()), MutableView(*invalid.view()));
        });

    TensorPtr results[7];
    Written written;
    for (int k = 0; k < 7; ++k) {
      const bool per_class = k == 1 || k == 3 || k >= 5;
      results[k] =
          std::make_unique<Tensor>(which, SEGPRIOR_FLOAT64, per_class ? of_class : std::vector<int64_t>{2});
      written.add(results[k]);
    }
    const auto result = [&](int k) { return results[k]->view(); };
    const segprior_confusion_scores_outputs outputs{sizeof(segprior_confusion_scores_outputs),
                                                    result(0),
                                                    result(1),
                                                    result(2),
                                                    result(3),
                                                    result(4),
                                                    result(5),
                                                    result(6)};
    check_same(
        device, "confusion scores", written,
        [&] { return segprior_confusion_scores(device.context(), matrix.view(), &outputs); },
        [&] {
          confusion_scores(
              context, View(*matrix.view()),
              {output_of(result(0)), output_of(result(1)), output_of(result(2)), output_of(result(3)),
               output_of(result(4)), output_of(result(5)), output_of(result(6))});
        });

    Tensor volumes(which, SEGPRIOR_INT64, of_class), faces(which, SEGPRIOR_INT64, {2, 3, 2});
    check_same(
        device, "label geometry", Written().add(&volumes.memory()).add(&faces.memory()),
        [&] {
          return segprior_label_geometry(device.context(), labels.view(), mask.view(), volumes.view(),
                                         faces.view());
        },
        [&] {
          label_geometry(context, View(*labels.view()), View(*mask.view()), MutableView(*volumes.view()),
                         MutableView(*faces.view()));
        });

    Components op(context);
    op.options.full = op.options.by_value = 1;
    Tensor components(which, SEGPRIOR_INT32, plane), count(which, SEGPRIOR_INT64, {2}),
        class_count(which, SEGPRIOR_INT64, of_class);
    op.inputs = {View(*labels.view()), View(*mask.view())};
    op.outputs = {MutableView(*components.view()), MutableView(*count.view()),
                  MutableView(*class_count.view())};
    size_t bytes = 0;
    REQUIRE(segprior_components_workspace_size(device.context(), &op.options, labels.view(), mask.view(),
                                               &bytes) == SEGPRIOR_OK);
    DeviceArray workspace(which, bytes);
    check_same(
        device, "components",
        Written().add(&components.memory()).add(&count.memory()).add(&class_count.memory()),
        [&] {
          return segprior_components(device.context(), &op.options, labels.view(), mask.view(),
                                     components.view(), count.view(), class_count.view(), workspace.data(),
                                     bytes);
        },
        [&] { op.forward(); });
  }
}

TEST_CASE("C++: CSR solve as the C call") {
  Device device(kCpu);  // on CUDA the call is the same, with libraries that need not be there
  const Context context;
  CsrCall call(device,
               {{0, 2, 5, 7},
                {0, 1, 0, 1, 2, 1, 2},
                {2, -1, -1, 3, -1, -1, 2},
                {1, 2, 3, 3, 2, 1},
                {1, 1, 1, 0, 0, 0}},
               SEGPRIOR_FLOAT64);
  CsrOptions options;
  options.preconditioner = call.opts.preconditioner = SEGPRIOR_CSR_NONE;
  const CsrMatrix a{call.rows, call.entries, static_cast<const int32_t *>(call.row_offsets.data()),
                    static_cast<const int32_t *>(call.columns.data()), View(*call.values.view())};
  check_same(
      device, "csr_solve", Written().add(&call.x.memory()).add(&call.info), [&] { return call.solve(); },
      [&] {
        csr_solve(context, options, a, View(*call.rhs.view()), View(*call.init->view()),
                  MutableView(*call.x.view()), static_cast<segprior_info *>(call.info.data()));
      });
}
