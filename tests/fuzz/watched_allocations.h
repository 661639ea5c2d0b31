// Allocation functions that remember the largest piece of memory that was asked for; a program that links
// watched_allocations.cc has them in place of the library's.

#ifndef QUICKSAVE_TESTS_FUZZ_WATCHED_ALLOCATIONS_H_
#define QUICKSAVE_TESTS_FUZZ_WATCHED_ALLOCATIONS_H_

#include <cstddef>

namespace quicksave::fuzz {

// Bytes of the largest allocation by operator new since the last call.
size_t TakeLargestAllocation();

}  // namespace quicksave::fuzz

#endif  // QUICKSAVE_TESTS_FUZZ_WATCHED_ALLOCATIONS_H_
