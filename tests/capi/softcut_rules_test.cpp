// The bad-input tables of softcut.h: options outside their range, rules between arguments, pointers and sizes
// of buffers, shapes, what is not supported.
#include <limits>

#include "tests/capi/softcut_bad_arguments.h"

using namespace segprior;
using namespace segprior::test;

namespace {

using Function = SoftcutFunction;
using Arguments = SoftcutArguments;
using Bad = SoftcutBad;
using Opts = segprior_softcut_opts;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

SoftcutCase plane() {
  return SoftcutCase({5, 7}, 3, 2).f32().diagonals().conductance(2).init().tolerance(0.5);
}
SoftcutCase bare() { return SoftcutCase({5, 7}, 3, 2).f32().tolerance(0.5); }
SoftcutCase line() { return SoftcutCase({9}, 3, 2).f32().tolerance(0.5); }
SoftcutCase volume() { return SoftcutCase({3, 4, 5}, 2, 2).f32().tolerance(0.5); }

template <class T>
void add(std::vector<Bad> &table, const std::string &name, T Opts::*member, const std::vector<T> &values) {
  for (T value : values)
    table.push_back({name + " = " + std::to_string(value), SEGPRIOR_ERROR_VALUE, "opts." + name + " = ",
                     [=](Arguments &a) { a.call.opts.*member = value; }});
}

char *offset(void *pointer, int bytes) { return static_cast<char *>(pointer) + bytes; }

segprior_info *info_at(void *pointer, int bytes = 0) {
  return reinterpret_cast<segprior_info *>(offset(pointer, bytes));
}

}  // namespace

TEST_CASE("softcut options: values outside their range [small]") {
  using Whole = std::vector<int32_t>;
  using Real = std::vector<double>;
  std::vector<Bad> table;
  add(table, "solver", &Opts::solver, Whole{-1, 6});
  add(table, "max_iterations", &Opts::max_iterations, Whole{-1});
  add(table, "tolerance", &Opts::tolerance, Real{0, -1, kNaN, kInf});
  add(table, "norm", &Opts::norm, Whole{-1, 2});
  add(table, "absolute", &Opts::absolute, Whole{-1, 2});
  add(table, "batch", &Opts::batch, Whole{-1, 2});
  add(table, "accumulate", &Opts::accumulate, Whole{-1, 2});
  add(table, "backward_tolerance", &Opts::backward_tolerance, Real{0, -1, kNaN, kInf});
  add(table, "backward_max_iterations", &Opts::backward_max_iterations, Whole{-1});
  add(table, "path", &Opts::path, Whole{-1, 5});
  for (Function function : kSoftcutWithOptions) check_bad(plane(), function, table);
}

TEST_CASE("softcut rules: pointers that must not be NULL [small]") {
  const auto null = [](const char *name, const std::function<void(Arguments &)> &spoil) {
    return Bad{std::string(name) + " NULL", SEGPRIOR_ERROR_NULL_POINTER, name, spoil};
  };
  const Bad context = null("context", [](Arguments &a) { a.context = nullptr; }),
            opts = null("opts", [](Arguments &a) { a.opts = nullptr; }),
            inputs = null("inputs", [](Arguments &a) { a.inputs = nullptr; });
  for (Function function : kSoftcutFunctions) check_bad(plane(), function, {context, inputs});
  for (Function function : kSoftcutWithOptions) check_bad(plane(), function, {opts});
  const auto workspace = [&](Function function) {
    return null("workspace", [=](Arguments &a) { a.workspace[static_cast<int>(function)] = nullptr; });
  };
  const Bad saved = null("saved", [](Arguments &a) { a.saved = nullptr; });
  const SoftcutCase multigrid = plane().solver(SoftcutCase::Solver::multigrid);
  for (Function function : kSoftcutCompute) check_bad(multigrid, function, {workspace(function), saved});
  check_bad(plane(), Function::forward, {null("outputs", [](Arguments &a) { a.outputs = nullptr; })});
  check_bad(plane(), Function::backward, {null("grads", [](Arguments &a) { a.grads = nullptr; })});
  check_bad(plane(), Function::double_backward,
            {null("cotangents", [](Arguments &a) { a.cotangents = nullptr; }),
             null("grads", [](Arguments &a) { a.second_grads = nullptr; })});
  check_bad(plane(), Function::csr_size, {null("entries", [](Arguments &a) { a.entries = nullptr; })});
  check_bad(plane(), Function::csr,
            {null("row_offsets", [](Arguments &a) { a.row_offsets = nullptr; }),
             null("columns", [](Arguments &a) { a.columns = nullptr; })});
}

TEST_CASE("softcut rules: what belongs to other numbers of axes [small]") {
  // A tensor that is sure to be valid somewhere.
  const auto given = [](const char *name, int edges, int diagonal, bool both = false) {
    return Bad{name, SEGPRIOR_ERROR_VALUE, std::string(name) + " is given, which needs", [=](Arguments &a) {
                 if (edges >= 0) a.call.inputs.edges[edges] = a.call.inputs.scores;
                 if (diagonal >= 0) a.call.inputs.diagonals[diagonal] = a.call.inputs.scores;
                 if (both) a.call.inputs.diagonals[1] = a.call.inputs.scores;
               }};
  };
  for (Function function : kSoftcutFunctions) {
    check_bad(line(), function,
              {given("inputs.edges[1]", 1, -1), given("inputs.edges[2]", 2, -1),
               given("inputs.diagonals[0]", -1, 0, true), given("inputs.diagonals[1]", -1, 1)});
    check_bad(bare(), function, {given("inputs.edges[2]", 2, -1)});
    check_bad(volume(), function, {given("inputs.diagonals[0]", -1, 0, true)});
    for (int missing : {0, 1})
      check_bad(plane(), function,
                {{"one diagonal", SEGPRIOR_ERROR_NULL_POINTER,
                  "inputs.diagonals[" + std::to_string(missing) + "] is NULL",
                  [=](Arguments &a) { a.call.inputs.diagonals[missing] = nullptr; }}});
  }
}

TEST_CASE("softcut rules: gradients and cotangents without their input [small]") {
  const auto gradient = [](const char *name, int edges, int diagonal) {
    return Bad{name, SEGPRIOR_ERROR_VALUE, std::string(name) + " is given, which needs", [=](Arguments &a) {
                 const segprior_tensor *any = a.call.scores->view();
                 for (const segprior_tensor **slots : {a.call.grads.edges, a.call.second_grads.edges})
                   if (edges >= 0) slots[edges] = any;
                 for (const segprior_tensor **slots : {a.call.grads.diagonals, a.call.second_grads.diagonals})
                   if (diagonal >= 0) slots[diagonal] = any;
                 if (edges < 0 && diagonal < 0)
                   a.call.grads.conductance = a.call.second_grads.conductance = any;
               }};
  };
  const auto cotangent = [](const char *name, int edges, int diagonal) {
    return Bad{name, SEGPRIOR_ERROR_VALUE, std::string(name) + " is given, which needs", [=](Arguments &a) {
                 const segprior_tensor *any = a.call.scores->view();
                 if (edges >= 0) a.call.cotangents.edges[edges] = any;
                 if (diagonal >= 0) a.call.cotangents.diagonals[diagonal] = any;
                 if (edges < 0 && diagonal < 0) a.call.cotangents.conductance = any;
               }};
  };
  for (Function function : {Function::backward, Function::double_backward}) {
    check_bad(bare(), function,
              {gradient("grads.edges[2]", 2, -1), gradient("grads.diagonals[0]", -1, 0),
               gradient("grads.diagonals[1]", -1, 1), gradient("grads.conductance", -1, -1)});
    check_bad(line(), function, {gradient("grads.edges[1]", 1, -1)});
    check_bad(volume(), function, {gradient("grads.diagonals[0]", -1, 0)});
  }
  check_bad(bare(), Function::double_backward,
            {cotangent("cotangents.edges[2]", 2, -1), cotangent("cotangents.diagonals[0]", -1, 0),
             cotangent("cotangents.diagonals[1]", -1, 1), cotangent("cotangents.conductance", -1, -1)});
}

TEST_CASE("softcut rules: shared or per class is one choice [small]") {
  // With one class in its shape, every array that has one for each class is of the wrong kind.
  const auto one_class = [](const char *what, const char *names, int slot) {
    return Bad{what, SEGPRIOR_ERROR_SHAPE, names, [=](Arguments &a) {
                 edit(
                     [=](Arguments &b) -> const segprior_tensor *& {
                       return slot < 2   ? b.call.inputs.edges[slot]
                              : slot < 4 ? b.call.inputs.diagonals[slot - 2]
                                         : b.call.inputs.conductance;
                     },
                     [](EditedTensor &e) {
                       e.shape[1] = 1;
                       e.tensor.strides = nullptr;
                     })(a);
               }};
  };
  for (Function function : kSoftcutFunctions)
    check_bad(plane(), function,
              {one_class("the first edges", "inputs.edges[1]", 0),
               one_class("the second edges", "inputs.edges[1]", 1),
               one_class("a diagonal", "inputs.diagonals[0]", 2),
               one_class("the other diagonal", "inputs.diagonals[1]", 3),
               one_class("the conductance", "inputs.conductance", 4)});
}

TEST_CASE("softcut rules: buffers [small]") {
  const SoftcutCase c = plane().solver(SoftcutCase::Solver::multigrid);
  for (Function function : kSoftcutCompute) {
    const int k = static_cast<int>(function);
    check_bad(c, function,
              {{"workspace too small", SEGPRIOR_ERROR_BUFFER_TOO_SMALL, "workspace_bytes",
                [=](Arguments &a) { a.workspace_bytes[k] -= 1; }},
               {"no workspace bytes", SEGPRIOR_ERROR_BUFFER_TOO_SMALL, "workspace_bytes = 0",
                [=](Arguments &a) { a.workspace_bytes[k] = 0; }},
               {"saved too small", SEGPRIOR_ERROR_BUFFER_TOO_SMALL, "saved_bytes",
                [](Arguments &a) { a.saved_bytes -= 1; }},
               {"workspace alignment", SEGPRIOR_ERROR_ALIGNMENT, "workspace",
                [=](Arguments &a) { a.workspace[k] = offset(a.workspace[k], 32); }},
               {"saved alignment", SEGPRIOR_ERROR_ALIGNMENT, "saved",
                [](Arguments &a) { a.saved = offset(a.saved, 32); }},
               {"workspace is saved", SEGPRIOR_ERROR_OVERLAP, "workspace",
                [=](Arguments &a) { a.workspace[k] = a.saved; }}});
  }
  check_bad(c, Function::forward,
            {{"info alignment", SEGPRIOR_ERROR_ALIGNMENT, "outputs.info",
              [](Arguments &a) { a.call.outputs.info = info_at(a.call.outputs.info, 4); }},
             {"info in x", SEGPRIOR_ERROR_OVERLAP, "outputs.info",
              [](Arguments &a) { a.call.outputs.info = info_at(a.call.outputs.x->data); }}});
  check_bad(c, Function::backward,
            {{"info alignment", SEGPRIOR_ERROR_ALIGNMENT, "grads.info",
              [](Arguments &a) { a.call.grads.info = info_at(a.call.grads.info, 4); }},
             {"info in x", SEGPRIOR_ERROR_OVERLAP, "grads.info",
              [](Arguments &a) { a.call.grads.info = info_at(a.x->data); }},
             {"gradient in x", SEGPRIOR_ERROR_OVERLAP, "grads.scores",
              [](Arguments &a) { a.call.grads.scores = a.x; }},
             {"gradient in grad_x", SEGPRIOR_ERROR_OVERLAP, "grads.scores",
              [](Arguments &a) { a.call.grads.scores = a.grad_x; }},
             {"two gradients in one", SEGPRIOR_ERROR_OVERLAP, "grads.conductance",
              [](Arguments &a) { a.call.grads.conductance = a.call.grads.scores; }}});
  check_bad(c, Function::double_backward,
            {{"info alignment", SEGPRIOR_ERROR_ALIGNMENT, "grads.info",
              [](Arguments &a) { a.call.second_grads.info = info_at(a.call.second_grads.info, 4); }},
             // Twice as many as of the other calls.
             {"info of the size of one solve", SEGPRIOR_ERROR_OVERLAP, "grads.info",
              [](Arguments &a) {
                const int before = static_cast<int>(sizeof(segprior_info)) * 6;
                a.call.second_grads.info = info_at(a.call.second_grads.grad_x->data, 0);
                a.call.second_grads.grad_x = nullptr;
                static thread_local segprior_tensor moved;
                moved = *a.call.second_grads.scores;
                moved.data = offset(a.call.second_grads.info, before);
                a.call.second_grads.scores = &moved;
              }},
             {"gradient in a cotangent", SEGPRIOR_ERROR_OVERLAP, "grads.scores",
              [](Arguments &a) { a.call.second_grads.scores = a.call.cotangents.scores; }},
             {"gradient in grad_scores", SEGPRIOR_ERROR_OVERLAP, "grads.grad_x",
              [](Arguments &a) { a.call.second_grads.grad_x = a.grad_scores; }}});
  check_bad(plane(), Function::csr,
            {{"row_offsets alignment", SEGPRIOR_ERROR_ALIGNMENT, "row_offsets",
              [](Arguments &a) { a.row_offsets = reinterpret_cast<int32_t *>(offset(a.row_offsets, 2)); }},
             {"columns alignment", SEGPRIOR_ERROR_ALIGNMENT, "columns",
              [](Arguments &a) { a.columns = reinterpret_cast<int32_t *>(offset(a.columns, 2)); }},
             {"one array for both", SEGPRIOR_ERROR_OVERLAP, "row_offsets",
              [](Arguments &a) { a.row_offsets = a.columns; }}});
  // The size query of saved has one result.
  for (segprior_device which : all_devices()) {
    Device device(which);
    SoftcutArguments arguments(device, c);
    CHECK(segprior_softcut_saved_size(device.context(), arguments.opts, arguments.inputs, nullptr) ==
          SEGPRIOR_ERROR_NULL_POINTER);
    CHECK(segprior_softcut_workspace_size(device.context(), arguments.opts, arguments.inputs, nullptr,
                                          nullptr, nullptr) == SEGPRIOR_OK);
  }
}

TEST_CASE("softcut rules: shapes of the scores [small]") {
  const auto shaped = [](const char *what, segprior_status status, std::vector<int64_t> shape) {
    return Bad{what, status, "inputs.scores", [=](Arguments &a) {
                 static thread_local std::vector<int64_t> keep;
                 keep = shape;
                 edit([](Arguments &b) -> const segprior_tensor *& { return b.call.inputs.scores; },
                      [](EditedTensor &e) {
                        e.tensor.ndim = static_cast<int32_t>(keep.size());
                        e.tensor.shape = keep.data();
                        e.tensor.strides = nullptr;
                      })(a);
               }};
  };
  for (Function function : kSoftcutFunctions)
    check_bad(
        bare(), function,
        {shaped("no spatial axis", SEGPRIOR_ERROR_SHAPE, {2, 3}),
         shaped("four spatial axes", SEGPRIOR_ERROR_SHAPE, {1, 2, 1, 1, 1, 3}),
         shaped("too many bytes", SEGPRIOR_ERROR_SIZE_OVERFLOW, {int64_t(1) << 31, 4, int64_t(1) << 31})});
}

TEST_CASE("softcut rules: what is not supported [small]") {
  using Solver = SoftcutCase::Solver;
  const auto solver = [](int32_t value, int32_t path, const char *names) {
    return Bad{"solver " + std::to_string(value) + " on path " + std::to_string(path),
               SEGPRIOR_ERROR_NOT_SUPPORTED, names, [=](Arguments &a) {
                 a.call.opts.solver = value;
                 a.call.opts.path = path;
               }};
  };
  for (segprior_device which : all_devices()) {
    Device device(which);
    SoftcutArguments arguments(device, bare());
    for (Function function : kSoftcutWithOptions) {
      const auto check = [&](const Bad &bad) {
        INFO(name_of(which) << ", function " << static_cast<int>(function) << ", " << bad.what);
        arguments.reset();
        bad.spoil(arguments);
        CHECK(arguments.run(function) == bad.status);
        const std::string message = segprior_last_error();
        const bool named = message.find(bad.names) != std::string::npos;
        CHECK_MESSAGE(named, "the message \"" << message << "\" does not contain \"" << bad.names << "\"");
        CHECK(arguments.untouched());
      };
      if (which.type != SEGPRIOR_CUDA) continue;
      check(solver(SEGPRIOR_SOFTCUT_DIRECT, SEGPRIOR_PATH_AUTO, "opts.solver"));
      check(solver(SEGPRIOR_SOFTCUT_MULTIGRID, SEGPRIOR_PATH_ON_CHIP, "opts.path"));
      check(solver(SEGPRIOR_SOFTCUT_MULTIGRID, SEGPRIOR_PATH_CLUSTER, "opts.path"));
    }
  }
  // A system that no multiprocessor can hold. Only shapes are looked at.
  for (segprior_device which : all_devices()) {
    if (which.type != SEGPRIOR_CUDA) continue;
    Device device(which);
    SoftcutCase c({1024, 1024}, 1);
    SoftcutCall call(device, make_problem(c), settings_of(c.solver(Solver::jacobi)));
    call.opts.path = SEGPRIOR_PATH_ON_CHIP;
    CHECK(call.query() == SEGPRIOR_ERROR_NOT_SUPPORTED);
    CHECK(std::string(segprior_last_error()).find("opts.path") != std::string::npos);
  }
  // 16-bit edges are not exported; their number of entries is known.
  const SoftcutCase half = bare().f16();
  for (segprior_device which : all_devices()) {
    Device device(which);
    SoftcutArguments arguments(device, half);
    CHECK(arguments.run(Function::csr) == SEGPRIOR_ERROR_NOT_SUPPORTED);
    CHECK(std::string(segprior_last_error()).find("inputs.edges") != std::string::npos);
    CHECK(arguments.untouched());
    CHECK(arguments.run(Function::csr_size) == SEGPRIOR_OK);
  }
}

TEST_CASE("softcut rules: a matrix of 2^31 entries is not exported [small]") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    SoftcutArguments arguments(device, bare());
    constexpr int64_t kSide = 1 << 15;
    static const int64_t shapes[3][4] = {
        {1, 1, kSide, kSide}, {1, 1, kSide - 1, kSide}, {1, 1, kSide, kSide - 1}};
    segprior_tensor tensors[3] = {*arguments.call.inputs.scores, *arguments.call.inputs.edges[0],
                                  *arguments.call.inputs.edges[1]};
    for (int k = 0; k < 3; ++k) tensors[k].shape = shapes[k];
    arguments.call.inputs.scores = &tensors[0];
    arguments.call.inputs.edges[0] = &tensors[1];
    arguments.call.inputs.edges[1] = &tensors[2];
    CHECK(arguments.run(Function::csr_size) == SEGPRIOR_OK);
    CHECK(*arguments.entries == kSide * kSide + 4 * kSide * (kSide - 1));
    CHECK(arguments.run(Function::csr) == SEGPRIOR_ERROR_SIZE_OVERFLOW);
    CHECK(std::string(segprior_last_error()).find("entries") != std::string::npos);
    CHECK(arguments.untouched());
  }
}

#if defined(SEGPRIOR_WITH_CUDA)
TEST_CASE("softcut rules: host memory on a CUDA context [small]") {
  static std::vector<float> host(1 << 16);
  void *const data = host.data();
  for (segprior_device which : all_devices()) {
    if (which.type != SEGPRIOR_CUDA) continue;
    Device device(which);
    SoftcutArguments arguments(device, plane());
    const auto check = [&](const std::string &names, Function function, const std::function<void()> &spoil) {
      INFO(names);
      arguments.reset();
      spoil();
      CHECK(arguments.run(function) == SEGPRIOR_ERROR_DEVICE);
      CHECK(std::string(segprior_last_error()).find(names) != std::string::npos);
      CHECK(arguments.untouched());
    };
    SoftcutArguments &a = arguments;
    const auto moved = [&](const segprior_tensor *&slot) {
      static segprior_tensor tensor;
      tensor = *slot;
      tensor.data = data;
      slot = &tensor;
    };
    check("inputs.scores", Function::forward, [&] { moved(a.call.inputs.scores); });
    check("inputs.edges[1]", Function::csr, [&] { moved(a.call.inputs.edges[1]); });
    check("outputs.x", Function::forward, [&] { moved(a.call.outputs.x); });
    check("outputs.info", Function::forward, [&] { a.call.outputs.info = info_at(data); });
    check("grads.scores", Function::backward, [&] { moved(a.call.grads.scores); });
    check("cotangents.scores", Function::double_backward, [&] { moved(a.call.cotangents.scores); });
    check("columns", Function::csr, [&] { a.columns = static_cast<int32_t *>(data); });
  }
}
#endif
