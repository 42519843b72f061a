// How real numbers of a call's main tensors are stored. The arithmetic is double for f64, else float.
#pragma once

namespace segprior {

enum class Storage { f32, f64, f16, bf16 };

}  // namespace segprior
