// Random profiles of the learned codec, for tests.

#ifndef QUICKSAVE_COMPRESSOR_LEARNED_TEST_LEARNED_PROFILE_H_
#define QUICKSAVE_COMPRESSOR_LEARNED_TEST_LEARNED_PROFILE_H_

#include <memory>

#include "compressor/latent/test_profile.h"
#include "compressor/learned/learned_profile.h"

namespace quicksave::compressor {

// A valid sidecar of this architecture over a source's profile, whose latents have a third of its components. Equal
// arguments give equal profiles.
std::shared_ptr<const LearnedProfile> RandomLearnedProfile(const TestSource& source, Architecture architecture,
                                                           uint64_t seed = 1);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LEARNED_TEST_LEARNED_PROFILE_H_
