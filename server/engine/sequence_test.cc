#include "server/engine/sequence.h"

#include <random>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace quicksave::engine {
namespace {

constexpr KvShape kShape{.layers = 1, .kv_heads = 1, .head_dim = 32};

// What a sequence must hold: its tokens, and for each the value that was written to its slots.
struct Model {
  std::vector<int32_t> tokens;
  std::vector<uint16_t> marks;
  bool has_logits = false;
};

class SequenceTest : public testing::Test {
 protected:
  // Appends tokens and writes a mark into each one's K and V, as a forward pass would.
  void Append(Sequence& sequence, Model& model, const std::vector<int32_t>& tokens, uint16_t mark) {
    const int before = sequence.length();
    const int pages_before = pool_->used_pages();
    const int bound = sequence.PagesToAppend(static_cast<int>(tokens.size()));
    PageReservation reservation = pool_->Reserve(bound).value();
    sequence.Append(tokens, reservation);
    EXPECT_LE(pool_->used_pages() - pages_before, bound);
    for (const int32_t token : tokens) {
      model.tokens.push_back(token);
      model.marks.push_back(mark);
    }
    for (int i = before; i < sequence.length(); ++i) Mark(sequence, i, mark);
    if (!tokens.empty()) model.has_logits = false;
  }

  static uint16_t* Keys(const Sequence& sequence, int token) {
    return reinterpret_cast<uint16_t*>(sequence.pages()[token / cpu::kPageTokens].data()) + token % cpu::kPageTokens;
  }
  static uint16_t* Values(const Sequence& sequence, int token) {
    std::byte* page = sequence.pages()[token / cpu::kPageTokens].data();
    return reinterpret_cast<uint16_t*>(page + kShape.value_offset(0)) + token % cpu::kPageTokens * 32;
  }
  static void Mark(const Sequence& sequence, int token, uint16_t mark) {
    for (int i = 0; i < 32; ++i) Keys(sequence, token)[i * cpu::kPageTokens] = mark;
    for (int i = 0; i < 32; ++i) Values(sequence, token)[i] = mark;
  }

  static void Expect(const Sequence& sequence, const Model& model) {
    ASSERT_EQ(sequence.tokens(), model.tokens);
    ASSERT_EQ(sequence.length(), static_cast<int>(model.tokens.size()));
    ASSERT_EQ(sequence.pages().size(), static_cast<size_t>(PagesFor(sequence.length())));
    ASSERT_EQ(sequence.next_logits() != nullptr, model.has_logits);
    for (int i = 0; i < sequence.length(); ++i) {
      for (int k = 0; k < 32; ++k) ASSERT_EQ(Keys(sequence, i)[k * cpu::kPageTokens], model.marks[i]) << i;
      for (int k = 0; k < 32; ++k) ASSERT_EQ(Values(sequence, i)[k], model.marks[i]) << i;
    }
  }

  const std::unique_ptr<PagePool> pool_ =
      PagePool::Create({.shape = kShape, .memory_bytes = 2000 * kShape.page_bytes(), .poison = true}).value();
};

TEST_F(SequenceTest, BranchesNeverSeeEachOthersChanges) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  std::vector<Sequence> sequences(1);
  std::vector<Model> models(1);
  for (int step = 0; step < 3000; ++step) {
    const size_t i = random() % sequences.size();
    switch (random() % 5) {
      case 0:
      case 1: {
        std::vector<int32_t> tokens(random() % (random() % 4 == 0 ? 40 : 3));
        for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 1000);
        if (sequences[i].length() + tokens.size() > 200) break;
        Append(sequences[i], models[i], tokens, static_cast<uint16_t>(random()));
        break;
      }
      case 2:
        if (sequences.size() < 30) {
          sequences.push_back(sequences[i]);
          models.push_back(models[i]);
        } else {
          sequences[i] = sequences[0];
          models[i] = models[0];
        }
        break;
      case 3: {
        const int keep = static_cast<int>(random() % 210);
        sequences[i].Truncate(keep);
        if (keep < static_cast<int>(models[i].tokens.size())) {
          models[i].tokens.resize(keep);
          models[i].marks.resize(keep);
          models[i].has_logits = false;
        }
        break;
      }
      default:
        sequences[i].set_next_logits(std::make_shared<const Logits>(3, 1.0F));
        models[i].has_logits = true;
    }
    if (step % 20 == 0) {
      for (size_t k = 0; k < sequences.size(); ++k) Expect(sequences[k], models[k]);
    }
    if (HasFatalFailure()) return;
  }
  sequences.clear();
  EXPECT_EQ(pool_->used_pages(), 0);
}

TEST_F(SequenceTest, CopiesShareAllPages) {
  Sequence trunk;
  Model model;
  Append(trunk, model, std::vector<int32_t>(100, 1), 5);
  const int used = pool_->used_pages();
  std::vector<Sequence> branches(64, trunk);
  EXPECT_EQ(pool_->used_pages(), used);
  for (Sequence& branch : branches) {
    Model branch_model = model;
    Append(branch, branch_model, {2}, 6);
    Expect(branch, branch_model);
  }
  // Each copied the last page only.
  EXPECT_EQ(pool_->used_pages(), used + 64);
  Expect(trunk, model);
}

TEST_F(SequenceTest, AFullLastPageIsNotCopied) {
  Sequence trunk;
  Model model;
  Append(trunk, model, std::vector<int32_t>(32, 1), 5);
  EXPECT_EQ(trunk.PagesToAppend(16), 1);
  Sequence branch = trunk;
  Append(branch, model, {2}, 6);
  EXPECT_EQ(pool_->used_pages(), 3);
}

TEST_F(SequenceTest, KnowsHowManyPagesItTakesNow) {
  Sequence sequence;
  Model model;
  EXPECT_EQ(sequence.PagesToAppendNow(0), 0);
  EXPECT_EQ(sequence.PagesToAppendNow(17), 2);
  Append(sequence, model, std::vector<int32_t>(20, 1), 5);
  EXPECT_EQ(sequence.PagesToAppendNow(12), 0);
  EXPECT_EQ(sequence.PagesToAppendNow(13), 1);
  // Whatever happens to be shared by then, this is enough.
  EXPECT_EQ(sequence.PagesToAppend(12), 1);
  EXPECT_EQ(sequence.PagesToAppend(13), 2);
  Sequence copy = sequence;
  EXPECT_EQ(sequence.PagesToAppendNow(12), 1);
  EXPECT_EQ(sequence.PagesToAppendNow(13), 2);
  EXPECT_EQ(sequence.PagesToAppendNow(0), 0);
  copy.Truncate(20);  // no change
  copy.Truncate(19);  // its own table now, but the same pages
  EXPECT_EQ(sequence.PagesToAppendNow(12), 1);
  copy = Sequence();
  EXPECT_EQ(sequence.PagesToAppendNow(12), 0);
}

TEST_F(SequenceTest, TruncatingToNothingGivesAllPagesBack) {
  Sequence sequence;
  Model model;
  Append(sequence, model, std::vector<int32_t>(50, 1), 5);
  sequence.Truncate(0);
  EXPECT_EQ(sequence.length(), 0);
  EXPECT_EQ(pool_->used_pages(), 0);
}

TEST_F(SequenceTest, ReleasePromisesOnlyPagesThatNobodyElseHas) {
  Sequence sequence;
  Model model;
  Append(sequence, model, std::vector<int32_t>(40, 1), 5);
  const Sequence kept = sequence;
  PageReservation reservation;
  Sequence copy = sequence;
  copy.Release(reservation);
  EXPECT_EQ(copy.length(), 0);
  EXPECT_EQ(reservation.pages(), 0);
  Append(sequence, model, std::vector<int32_t>(20, 2), 6);  // copies the third page, adds the fourth
  const int free = pool_->free_pages();
  sequence.Release(reservation);
  EXPECT_EQ(reservation.pages(), 2);
  EXPECT_EQ(pool_->used_pages(), 3);
  EXPECT_EQ(pool_->free_pages(), free);
  reservation = {};
  EXPECT_EQ(pool_->free_pages(), free + 2);
  EXPECT_EQ(kept.length(), 40);
}

TEST_F(SequenceTest, AppendingNothingKeepsTheLogits) {
  Sequence sequence;
  Model model;
  Append(sequence, model, {1, 2, 3}, 5);
  sequence.set_next_logits(std::make_shared<const Logits>(3, 1.0F));
  PageReservation none;
  sequence.Append({}, none);
  EXPECT_NE(sequence.next_logits(), nullptr);
  sequence.Truncate(3);
  EXPECT_NE(sequence.next_logits(), nullptr);
  sequence.Truncate(2);
  EXPECT_EQ(sequence.next_logits(), nullptr);
}

TEST_F(SequenceTest, LossyTokensGoWithCopiesAndEndWithTheTokens) {
  Sequence sequence;
  Model model;
  Append(sequence, model, std::vector<int32_t>(40, 1), 5);
  EXPECT_EQ(sequence.lossy_tokens(), 0);
  sequence.set_lossy_tokens(30);
  Sequence copy = sequence;
  Append(copy, model, std::vector<int32_t>(5, 2), 6);
  EXPECT_EQ(copy.lossy_tokens(), 30);
  copy.Truncate(33);
  EXPECT_EQ(copy.lossy_tokens(), 30);
  copy.Truncate(12);
  EXPECT_EQ(copy.lossy_tokens(), 12);
  EXPECT_EQ(sequence.lossy_tokens(), 30);
  PageReservation reservation;
  copy.Release(reservation);
  EXPECT_EQ(copy.lossy_tokens(), 0);
}

TEST_F(SequenceTest, CopiesMayBeReadAndDroppedByOtherThreads) {
  Sequence sequence;
  Model model;
  for (int round = 0; round < 300; ++round) {
    Append(sequence, model, {round}, static_cast<uint16_t>(round));
    Sequence copy = sequence;
    std::thread reader([copy = std::move(copy), expected = model]() mutable {
      Expect(copy, expected);
      copy = Sequence();
    });
    // Whether the copy is still there or not, these may write.
    for (int i = 0; i < 3; ++i) Append(sequence, model, {round, i}, static_cast<uint16_t>(i));
    reader.join();
    Expect(sequence, model);
    if (sequence.length() > 100) {
      sequence.Truncate(3);
      model.tokens.resize(3);
      model.marks.resize(3);
    }
  }
}

TEST_F(SequenceTest, SameKeyValuesComparesEveryChannel) {
  Sequence a;
  Sequence b;
  Model model;
  Append(a, model, std::vector<int32_t>(20, 1), 5);
  Append(b, model, std::vector<int32_t>(20, 1), 5);
  EXPECT_TRUE(SameKeyValues(a, b, 0));
  EXPECT_TRUE(SameKeyValues(a, b, 19));
  Keys(b, 19)[31 * cpu::kPageTokens] ^= 1;
  EXPECT_FALSE(SameKeyValues(a, b, 19));
  EXPECT_TRUE(SameKeyValues(a, b, 18));
  Values(b, 18)[31] ^= 0x8000;
  EXPECT_FALSE(SameKeyValues(a, b, 18));
  EXPECT_TRUE(SameKeyValues(a, b, 17));
}

}  // namespace
}  // namespace quicksave::engine
