#include <algorithm>
#include <atomic>
#include <cmath>
#include <new>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/engine/kernels/cpu_device.h"
#include "server/engine/model/decoder.h"

namespace quicksave::engine {

// Reads tensors of the Hugging Face naming into a Decoder; remembers the first error, after which it returns empty
// ones.
class Decoder::Loader {
 public:
  Loader(Decoder& decoder, ThreadPool* threads)
      : decoder_(decoder), config_(decoder.config_), memory_(decoder.device_->memory()), threads_(threads) {}

  absl::Status Run() {
    const WeightRows embedding = MatrixRows("model.embed_tokens.weight", config_.vocab_size, config_.hidden_size);
    decoder_.embedding_ = embedding;
    for (int i = 0; i < config_.layers && status_.ok(); ++i) decoder_.layers_.push_back(LoadLayer(i));
    decoder_.final_norm_ = Norm("model.norm", config_.hidden_size);
    const WeightRows head =
        config_.tied_head ? embedding : MatrixRows("lm_head.weight", config_.vocab_size, config_.hidden_size);
    CheckAllUsed();
    if (!status_.ok()) return status_;
    decoder_.head_ = {Pack({head}), DeviceBuffer<float>(memory_)};
    if (!status_.ok()) return status_;
    for (const RopeOptions& rope : config_.ropes) {
      decoder_.ropes_.push_back(OnDevice(RopeTable(rope, config_.head_dim, config_.context_length)));
    }
    return absl::OkStatus();
  }

 private:
  struct Part {
    std::string name;
    int outputs;
  };

  Layer LoadLayer(int index) {
    const std::string prefix = absl::StrCat("model.layers.", index, ".");
    const auto norm = [&](const std::string& name) {
      return name.empty() ? DeviceBuffer<float>(memory_) : Norm(prefix + name, config_.hidden_size);
    };
    const auto head_norm = [&](const char* name) {
      return config_.query_key_norms ? Norm(prefix + name, config_.head_dim) : DeviceBuffer<float>(memory_);
    };
    const int hidden = config_.hidden_size;
    return {.index = index,
            .options = config_.layer_options[index],
            .attention_norm = norm(config_.norms.before_attention),
            .query_key_value = LoadLinear({{prefix + "self_attn.q_proj", config_.query_width()},
                                           {prefix + "self_attn.k_proj", config_.kv_width()},
                                           {prefix + "self_attn.v_proj", config_.kv_width()}},
                                          hidden, config_.query_key_value_bias),
            .query_norm = head_norm("self_attn.q_norm"),
            .key_norm = head_norm("self_attn.k_norm"),
            .attention_out =
                LoadLinear({{prefix + "self_attn.o_proj", hidden}}, config_.query_width(), config_.attention_out_bias),
            .after_attention_norm = norm(config_.norms.after_attention),
            .mlp_norm = norm(config_.norms.before_mlp),
            .gate_up = LoadLinear({{prefix + "mlp.gate_proj", config_.intermediate_size},
                                   {prefix + "mlp.up_proj", config_.intermediate_size}},
                                  hidden, config_.mlp_bias),
            .down = LoadLinear({{prefix + "mlp.down_proj", hidden}}, config_.intermediate_size, config_.mlp_bias),
            .after_mlp_norm = norm(config_.norms.after_mlp)};
  }

  // Rows [outputs, inputs] inside the mapped file.
  WeightRows MatrixRows(const std::string& name, int outputs, int inputs) {
    const WeightRows rows = Rows(name, {outputs, inputs});
    if (status_.ok() && decoder_.format_ == WeightFormat::kBf16 && rows.bf16() == nullptr) {
      Fail(absl::UnimplementedError(absl::StrCat("tensor ", name, " is ", found_.dtype,
                                                 "; with bf16 weights the engine runs checkpoints in BF16: start it "
                                                 "with --weights=fp32 or int8, or convert the model first")));
    }
    return rows;
  }

  WeightRows Rows(const std::string& name, const std::vector<int64_t>& shape) {
    const TensorView* tensor = Find(name, shape);
    if (tensor == nullptr) return {};
    const absl::StatusOr<WeightRows> rows = WeightRows::Of(*tensor);
    if (rows.ok()) return *rows;
    Fail(absl::Status(rows.status().code(), absl::StrCat("tensor ", name, ": ", rows.status().message())));
    return {};
  }

  // Matrices with the same inputs, one below the other, and their biases.
  Linear LoadLinear(const std::vector<Part>& parts, int inputs, bool has_bias) {
    std::vector<WeightRows> matrices;
    std::vector<float> bias;
    for (const Part& part : parts) {
      matrices.push_back(MatrixRows(part.name + ".weight", part.outputs, inputs));
      if (!status_.ok()) return {};
      if (!has_bias) continue;
      const std::vector<float> values = Vector(part.name + ".bias", part.outputs);
      bias.insert(bias.end(), values.begin(), values.end());
    }
    return {Pack(matrices), OnDevice(bias)};
  }

  // The matrices, one below the other, as the kernels want them.
  Matrix Pack(const std::vector<WeightRows>& matrices) {
    const int inputs = matrices[0].width();
    int outputs = 0;
    for (const WeightRows& matrix : matrices) outputs += matrix.rows();
    switch (decoder_.format_) {
      case WeightFormat::kInt8:
        return PackOutputs<cpu::Int8Matrix>(matrices, outputs, inputs);
      case WeightFormat::kFp32:
        return PackOutputs<cpu::Fp32Matrix>(matrices, outputs, inputs);
      case WeightFormat::kBf16:
        break;
    }
    if (matrices.size() == 1) return cpu::PackedMatrix(matrices[0].bf16(), outputs, inputs, memory_);
    std::vector<uint16_t> stacked;
    for (const WeightRows& matrix : matrices) {
      stacked.insert(stacked.end(), matrix.bf16(), matrix.bf16() + size_t(matrix.rows()) * inputs);
    }
    return cpu::PackedMatrix(stacked.data(), outputs, inputs, memory_);
  }

  template <class Packed>
  Packed PackOutputs(const std::vector<WeightRows>& matrices, int outputs, int inputs) {
    Packed packed(outputs, inputs, memory_);
    std::atomic<bool> finite = true;
    int first = 0;
    for (const WeightRows& matrix : matrices) {
      const int parts = std::min(matrix.rows(), threads_->threads() * 8);
      threads_->ParallelFor(parts, [&](int part) {
        std::vector<float> row(inputs);
        for (int i = matrix.rows() * part / parts; i < matrix.rows() * (part + 1) / parts; ++i) {
          matrix.Read(i, row.data());
          if (!std::all_of(row.begin(), row.end(), [](float value) { return std::isfinite(value); })) finite = false;
          packed.SetOutput(first + i, row.data());
        }
      });
      first += matrix.rows();
    }
    if (!finite) Fail(absl::InvalidArgumentError("the model has weights that are not finite numbers"));
    return packed;
  }

  DeviceBuffer<float> Norm(const std::string& name, int size) {
    std::vector<float> weight = Vector(name + ".weight", size);
    // Not by 0, which would turn -0 into 0.
    if (config_.norm_weight_offset != 0) {
      for (float& value : weight) value += config_.norm_weight_offset;
    }
    return OnDevice(weight);
  }

  DeviceBuffer<float> OnDevice(const std::vector<float>& values) const {
    DeviceBuffer<float> buffer(values.size(), memory_);
    std::copy(values.begin(), values.end(), buffer.data());
    return buffer;
  }

  std::vector<float> Vector(const std::string& name, int size) {
    const WeightRows rows = Rows(name, {size});
    if (!status_.ok()) return {};
    std::vector<float> values(size);
    rows.Read(0, values.data());
    return values;
  }

  const TensorView* Find(const std::string& name, const std::vector<int64_t>& shape) {
    absl::StatusOr<TensorView> tensor = decoder_.weights_->Tensor(name, shape);
    if (!tensor.ok()) {
      Fail(tensor.status());
      return nullptr;
    }
    used_.insert(name);
    found_ = *std::move(tensor);
    return &found_;
  }

  // A tensor that nothing reads belongs to a feature that nothing computes, unless it repeats what is known anyway: the
  // frequencies of RoPE, or the embedding as the head.
  void CheckAllUsed() {
    for (const auto& [name, tensor] : decoder_.weights_->tensors()) {
      const bool repeated =
          absl::EndsWith(name, ".rotary_emb.inv_freq") || (config_.tied_head && name == "lm_head.weight");
      if (used_.contains(name) || repeated) continue;
      return Fail(absl::UnimplementedError(
          absl::StrCat("tensor ", name, " has no place in a model of architecture ", config_.architecture,
                       " with this config.json: it needs a feature that this engine does not have")));
    }
  }

  void Fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

  Decoder& decoder_;
  const ModelConfig& config_;
  DeviceMemory& memory_;
  ThreadPool* const threads_;
  TensorView found_;
  std::set<std::string> used_;
  absl::Status status_;
};

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Load(const std::string& model_dir, std::unique_ptr<Device> device,
                                                       ThreadPool* threads, WeightFormat format) {
  if (!cpu::IsSupported()) {
    return absl::UnimplementedError("this CPU lacks AVX2 or FMA, which the engine's kernels need");
  }
  absl::StatusOr<ModelConfig> config = LoadModelConfig(model_dir);
  if (!config.ok()) return config.status();
  auto decoder = std::unique_ptr<Decoder>(new Decoder(*std::move(config), std::move(device), format));
  absl::StatusOr<std::unique_ptr<SafetensorsModel>> weights = SafetensorsModel::Open(model_dir);
  if (!weights.ok()) return weights.status();
  decoder->weights_ = *std::move(weights);
  try {
    if (absl::Status status = Loader(*decoder, threads).Run(); !status.ok()) return status;
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(absl::StrCat("the memory of ", decoder->device_->name(),
                                                     " does not hold the weights of ", model_dir, " as ",
                                                     WeightFormatName(format)));
  }
  // All but the embedding has been packed.
  decoder->weights_->DropPages();
  return decoder;
}

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Load(const std::string& model_dir, ThreadPool* threads,
                                                       WeightFormat format) {
  return Load(model_dir, std::make_unique<CpuDevice>(threads), threads, format);
}

}  // namespace quicksave::engine
