// Writes the golden files of testdata/ for a new format version, from a synthetic profile:
//
//   latent_golden_writer DIRECTORY
//
// Files of older versions stay: they must decode forever. With the blocks go all that their decoding needs.

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "compressor/container.h"
#include "compressor/exact_codec.h"
#include "compressor/latent/latent_codec.h"
#include "compressor/latent/residual_codec.h"
#include "compressor/latent/test_profile.h"
#include "compressor/row_block.h"

namespace quicksave::compressor {
namespace {

void Check(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "%s failed\n", what);
  std::exit(1);
}

class GoldenWriter {
 public:
  explicit GoldenWriter(std::string directory) : directory_(std::move(directory)) {
    Check(RegisterBuiltinCodecs(registry_).ok() && registry_.Register(NewLatentCodec(source_.profile())).ok() &&
              registry_.Register(NewResidualCodec(source_.profile())).ok(),
          "registering the codecs");
  }

  void WriteAll() {
    Write("latent_v2.profile", source_.profile()->Serialize());
    WriteBlock("latent_v2_40", source_.Draw(40, 1), 4, 0.25f);
    WriteBlock("latent_v2_3", source_.Draw(3, 2), 0, 0.05f);
    Write("latent_v2.blocks", list_);
  }

 private:
  void WriteBlock(const std::string& name, const TestBlock& block, int known_tokens, float step) {
    BlockContext context = block.Context(step, known_tokens);
    const std::string latent = Encoded(kLatentCodec, block, context);
    std::vector<uint16_t> base = block.Prefilled(*source_.profile(), known_tokens);
    Check(DecodeBlock(registry_, latent, context, {block.shape, absl::MakeSpan(base)}).ok(), "decoding");
    context.base = base;
    Write(name + "_latent.qsbk", latent);
    Write(name + "_residual.qsbk", Encoded(kResidualCodec, block, context));
    Write(name + "_exact.qsbk", Encoded("exact", block, context));
    const RowBlockShape rows{.rows = block.shape.tokens, .width = source_.profile()->features};
    Write(name + "_hidden.qsrb",
          EncodeRowBlock(rows, block.hidden_states, ComputeRowBlockId(rows, block.hidden_states)));
    // Of even layers, then of odd ones.
    std::string angles;
    for (const std::vector<float>& table : block.angle_tables) {
      angles.append(reinterpret_cast<const char*>(table.data()), table.size() * sizeof(float));
    }
    Write(name + "_angles.f32", angles);
    list_ += name + " " + std::to_string(known_tokens) + " " + ComputeBlockId({block.shape, base}).ToHex() + "\n";
  }

  std::string Encoded(std::string_view codec, const TestBlock& block, const BlockContext& context) const {
    auto bytes = EncodeBlock(registry_, codec, block.view(), context);
    Check(bytes.ok(), "encoding");
    return *std::move(bytes);
  }

  void Write(const std::string& name, std::string_view bytes) const {
    std::ofstream file(std::string(directory_).append("/").append(name), std::ios::binary);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    Check(static_cast<bool>(file.flush()), "writing");
  }

  const std::string directory_;
  const TestSource source_{{.first_diagonal_group = 1}};
  CodecRegistry registry_;
  std::string list_;  // name, known tokens, id of what the latent decodes to
};

}  // namespace
}  // namespace quicksave::compressor

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
    return 2;
  }
  quicksave::compressor::GoldenWriter(argv[1]).WriteAll();
  return 0;
}
