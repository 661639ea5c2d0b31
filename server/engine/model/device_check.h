#ifndef QUICKSAVE_SERVER_ENGINE_MODEL_DEVICE_CHECK_H_
#define QUICKSAVE_SERVER_ENGINE_MODEL_DEVICE_CHECK_H_

#include "absl/status/status.h"
#include "server/engine/kernels/thread_pool.h"
#include "server/engine/model/decoder.h"

namespace quicksave::engine {

// Evaluates a few dozen tokens on the decoder's device and, with the same weights and `threads`, on the CPU.
// FAILED_PRECONDITION, saying what differs, unless K, V, logits and the residual stream after the last layer have the
// same bits: states of such a device could not go on elsewhere, and a restore of others' would fail its proof.
// Milliseconds for a small model.
absl::Status CheckDevice(Decoder& decoder, ThreadPool* threads);

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_MODEL_DEVICE_CHECK_H_
