// Writes the seeds of every decoder's target to DIRECTORY/TARGET/seed_N:
//
//   corpus_writer DIRECTORY

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/fuzz/decoder_targets.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
    return 2;
  }
  for (const quicksave::fuzz::DecoderTarget& target : quicksave::fuzz::DecoderTargets()) {
    const std::filesystem::path folder = std::filesystem::path(argv[1]) / target.name;
    std::filesystem::create_directories(folder);
    int number = 0;
    for (const std::string& seed : target.seeds()) {
      const std::filesystem::path file = folder / ("seed_" + std::to_string(number++));
      std::ofstream out(file, std::ios::binary);
      out.write(seed.data(), static_cast<std::streamsize>(seed.size()));
      if (!out.flush()) {
        std::fprintf(stderr, "%s cannot be written\n", file.c_str());
        return 1;
      }
    }
  }
  return 0;
}
