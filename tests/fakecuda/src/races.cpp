// ThreadSanitizer's report hook. Built without sanitizers: an instrumented hook would race with itself inside
// the runtime's lock.
#include <atomic>

#include "fakecuda/control.h"
#include "sanitizers.h"

namespace {

std::atomic<int> found{0};
std::atomic<bool> expected{false};

}  // namespace

namespace __tsan {
class ReportDesc;
// True drops the report.
bool OnReport(const ReportDesc *, bool suppressed) {
  ++found;
  return expected || suppressed;
}
}  // namespace __tsan

namespace fakecuda {

bool detects_races() { return with_tsan(); }

ExpectRaces::ExpectRaces() {
  found = 0;
  expected = true;
}
ExpectRaces::~ExpectRaces() { expected = false; }
int ExpectRaces::count() const { return found; }

}  // namespace fakecuda
