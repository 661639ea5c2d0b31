// `quicksave encode`, `drop` and `profiles`, and what other commands say of encodings.

#include "client/cli/json_output.h"
#include "client/cli/reports.h"
#include "client/cli/testing_run.h"
#include "gmock/gmock.h"

namespace quicksave::cli {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

class EncodingCommandsTest : public CliTest {
 protected:
  EncodingCommandsTest() {
    client::Encoding layered = TestingEncoding(6, 0.05f);
    layered.has_residual = true;
    layered.residual_bytes = 1'179'648;
    client::Encoding coarse = TestingEncoding(6, 0.2f);
    coarse.fidelity->next_token_kl = layered.fidelity->next_token_kl = 0.05;
    server_->trials = {{.encoding = coarse, .encode = absl::Milliseconds(30)},
                       {.encoding = layered, .within_budget = true, .encode = absl::Milliseconds(40)}};
    server_->nodes[0].encodings = {TestingEncoding(0, 0.1f), layered};
    server_->profiles = {{.id = "3eb8bc5a07a50c1f8ac1875c803c1c8c",
                          .codec = "latent",
                          .split = 6,
                          .size_bytes = 73'412'104,
                          .points = {{.name = "fine", .step = 0.05f, .ratio = 4.5, .mean_kl = 0.001},
                                     {.name = "default", .step = 0.1f, .ratio = 6, .mean_kl = 0.004}}},
                         {.id = "3eb90000000000000000000000000000", .codec = "latent", .size_bytes = 1'000}};
  }
};

TEST_F(EncodingCommandsTest, EncodeShowsWhatWasTriedAndStored) {
  const Result result = Run({"encode", "7f3a", "--max-kl", "0.005"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out,
            "STEP       SIZE   RATIO  WITH RESIDUAL  MEAN KL  LARGEST  NEXT TOKEN  TOP-1  CPU TIME  IN BUDGET\n"
            " 0.2  288.0 KiB  10.00x              -  0.00213   0.0341        0.05  98.4%   30.0 ms  no\n"
            "0.05  288.0 KiB  10.00x          2.00x  0.00213   0.0341        0.05  98.4%   40.0 ms  yes\n"
            "\n"
            "node    nodes/7f3a9c2100000000\n"
            "stored  latent, split 6, step 0.05, profile 3eb8bc5a: 288.0 KiB (10.00x), with residual 1.4 MiB (2.00x); "
            "mean KL 0.00213 nats, largest 0.0341, top-1 98.4%\n"
            "time    250.0 ms\n");
  ASSERT_THAT(server_->encodes, SizeIs(1));
  EXPECT_EQ(server_->encodes[0].name, "nodes/7f3a9c2100000000");
  EXPECT_EQ(server_->encodes[0].encoding, client::EncodingSpec());
  EXPECT_EQ(server_->encodes[0].budget, (client::FidelityBudget{.max_kl = 0.005}));
  EXPECT_FALSE(server_->encodes[0].drop_saved);
}

TEST_F(EncodingCommandsTest, EveryFlagOfEncodeReachesTheRequest) {
  ASSERT_EQ(Run({"encode", "7f3a", "--split", "6", "--step", "0.5", "--profile", "3eb8", "--residual", "--max-kl", "0",
                 "--min-top1", "0.75", "--drop-saved", "--etag", "e", "--request-id", "id"})
                .code,
            0);
  const client::EncodeNodeRequest& request = server_->encodes.at(0);
  client::EncodingSpec expected;
  expected.profile = "3eb8bc5a07a50c1f8ac1875c803c1c8c";
  expected.split = 6;
  expected.step = 0.5f;
  expected.residual = true;
  EXPECT_EQ(request.encoding, expected);
  EXPECT_EQ(request.budget, (client::FidelityBudget{.max_kl = 0, .min_top1 = 0.75}));
  EXPECT_TRUE(request.drop_saved);
  EXPECT_EQ(request.etag, "e");
  EXPECT_EQ(request.request_id, "id");
  const Result small = Run({"encode", "7f3a", "--point", "small", "--drop-saved"});
  EXPECT_EQ(server_->encodes.at(1).encoding.point, "small");
  EXPECT_THAT(small.out, HasSubstr("dropped  the blocks as saved\n"));
}

TEST_F(EncodingCommandsTest, WrongFlagsOfEncodeAreRefused) {
  EXPECT_EQ(Run({"encode"}).code, 2);
  EXPECT_EQ(Run({"encode", "4be1"}).code, 3) << "a session";
  EXPECT_EQ(Run({"encode", "7f3a", "--point", "fine", "--step", "0.1"}).code, 2);
  EXPECT_EQ(Run({"encode", "7f3a", "--step", "fine"}).code, 2);
  EXPECT_EQ(Run({"encode", "7f3a", "--max-kl", "low"}).code, 2);
  const Result several = Run({"encode", "7f3a", "--profile", "3eb"});
  EXPECT_EQ(several.code, 2);
  EXPECT_THAT(several.err, HasSubstr("'3eb' is the beginning of 2 profiles: 3eb8bc5a"));
  const Result none = Run({"encode", "7f3a", "--profile", "ffff"});
  EXPECT_EQ(none.code, 3);
  EXPECT_THAT(none.err, AllOf(HasSubstr("`quicksave profiles`"), Not(HasSubstr("quicksave ls"))));
  EXPECT_THAT(server_->encodes, IsEmpty());
}

TEST_F(EncodingCommandsTest, NothingWithinTheBudgetIsInTheExitCode) {
  server_->trials.pop_back();
  const Result result = Run({"encode", "7f3a", "--max-kl", "0"});
  EXPECT_EQ(result.code, 8);
  EXPECT_THAT(result.out, EndsWith("no\n"));
  EXPECT_THAT(result.err, HasSubstr("nothing that was tried keeps to the budget, and nodes/7f3a9c2100000000 is as it "
                                    "was"));
  const Result json = Run({"encode", "7f3a", "--max-kl", "0", "--json"});
  EXPECT_EQ(json.code, 8);
  EXPECT_FALSE(Json::parse(json.out).contains("encoding"));
  EXPECT_EQ(Json::parse(json.err)["error"]["code"], "FAILED_PRECONDITION");
}

TEST_F(EncodingCommandsTest, EncodeAsJson) {
  server_->trials[1].encoding.fidelity->probe_tokens = 63;
  server_->trials[1].encoding.fidelity->key_cosine = {0.5f};
  const Json json = Json::parse(Run({"encode", "7f3a", "--json"}).out);
  EXPECT_EQ(json["node"]["name"], "nodes/7f3a9c2100000000");
  EXPECT_EQ(json["encoding"]["residual_bytes"], 1'179'648);
  EXPECT_EQ(json["trials"][0]["within_budget"], false);
  EXPECT_EQ(json["trials"][0]["encode_seconds"], 0.03);
  EXPECT_EQ(json["trials"][0]["encoding"]["fidelity"].size(), 3u) << "not what was not said";
  EXPECT_EQ(json["trials"][1]["encoding"]["fidelity"]["probe_tokens"], 63);
  EXPECT_EQ(json["trials"][1]["encoding"]["fidelity"]["key_cosine"], Json({0.5}));
  EXPECT_EQ(json["total_seconds"], 0.25);
}

TEST_F(EncodingCommandsTest, DropNamesWhatItDrops) {
  const Result result = Run({"drop", "7f3a", "--saved", "--etag", "e", "--request-id", "id"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("dropped     the blocks as saved\n"));
  EXPECT_THAT(result.out, HasSubstr("encoding 1  latent, split 0, step 0.1, profile 3eb8bc5a: 288.0 KiB (10.00x)"));
  ASSERT_EQ(Run({"drop", "7f3a", "--encoding", "1"}).code, 0);
  ASSERT_EQ(Run({"drop", "7f3a", "--residual", "split=6", "--json"}).code, 0);
  ASSERT_THAT(server_->drops, SizeIs(3));
  EXPECT_EQ(server_->drops[0].name, "nodes/7f3a9c2100000000");
  EXPECT_EQ(server_->drops[0].what, client::DropTarget(client::DropSaved()));
  EXPECT_EQ(server_->drops[0].etag, "e");
  EXPECT_EQ(server_->drops[0].request_id, "id");
  const std::vector<client::Encoding>& encodings = server_->nodes[0].encodings;
  EXPECT_EQ(server_->drops[1].what, client::DropTarget(client::DropWhole{encodings[0]}));
  EXPECT_EQ(server_->drops[2].what, client::DropTarget(client::DropResidual{encodings[1]}));
}

TEST_F(EncodingCommandsTest, DropWantsOneThing) {
  EXPECT_EQ(Run({"drop", "7f3a"}).code, 2);
  EXPECT_EQ(Run({"drop", "7f3a", "--saved", "--encoding", "1"}).code, 2);
  EXPECT_EQ(Run({"drop", "7f3a", "--residual", "1", "--encoding", "1"}).code, 2);
  EXPECT_EQ(Run({"drop", "7f3a", "--encoding", "profile=3eb8"}).code, 2) << "both";
  EXPECT_EQ(Run({"drop", "7f3a", "--encoding", "3"}).code, 3);
  EXPECT_EQ(Run({"drop", "abcd", "--encoding", "1"}).code, 3);
  const Result exact = Run({"drop", "7f3a", "--residual", "split=0"});
  EXPECT_EQ(exact.code, 3);
  EXPECT_THAT(exact.err, HasSubstr("no residual of latent, split 0, step 0.1"));
  server_->nodes[0].saved_dropped = true;
  const Result gone = Run({"drop", "7f3a", "--saved"});
  EXPECT_EQ(gone.code, 3);
  EXPECT_THAT(gone.err, AllOf(HasSubstr("no blocks as saved any more"), Not(HasSubstr("quicksave ls"))));
  server_->nodes[0].saved_dropped = false;
  EXPECT_THAT(server_->drops, IsEmpty());
  server_->failure = absl::FailedPreconditionError("nothing would be left");
  EXPECT_EQ(Run({"drop", "7f3a", "--saved"}).code, 8);
}

TEST_F(EncodingCommandsTest, ProfilesAreListedWithTheirPoints) {
  EXPECT_EQ(Run({"profiles"}).out,
            "PROFILE                           CODEC   SPLIT      SIZE  POINT    STEP  RATIO  MEAN KL\n"
            "3eb8bc5a07a50c1f8ac1875c803c1c8c  latent      6  70.0 MiB  fine     0.05  4.50x    0.001\n"
            "                                                           default   0.1  6.00x    0.004\n"
            "3eb90000000000000000000000000000  latent      0    1000 B  -           -      -        -\n");
  const Json json = Json::parse(Run({"profiles", "--json"}).out);
  EXPECT_EQ(json["profiles"][0]["points"][1]["name"], "default");
  EXPECT_EQ(json["profiles"][1]["points"], Json::array());
  server_->profiles.clear();
  EXPECT_THAT(Run({"profiles"}).err, HasSubstr("none is loaded"));
}

TEST_F(EncodingCommandsTest, ProfileIsLoadedByItsWholeName) {
  const Result result = Run({"profiles", "--load", "/profiles/p.safetensors"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("3eb8bc5a"), Not(HasSubstr("3eb9"))));
  EXPECT_EQ(Json::parse(Run({"profiles", "--load", "p.safetensors", "--json"}).out)["split"], 6);
  EXPECT_THAT(server_->loaded_profiles, ElementsAre("/profiles/p.safetensors", EndsWith("/p.safetensors")));
  EXPECT_EQ(server_->loaded_profiles[1].front(), '/');
  EXPECT_EQ(Run({"profiles", "--load", ""}).code, 2);
}

TEST_F(EncodingCommandsTest, ShowAndListsSayWhatIsStored) {
  const Result both = Run({"show", "7f3a"});
  EXPECT_THAT(both.out, HasSubstr("stored      1.8 MiB of 2.8 MiB (exact, 1.56x) in 1 blocks\n"));
  EXPECT_THAT(both.out, HasSubstr("encoding 2  latent, split 6, step 0.05, profile 3eb8bc5a: 288.0 KiB (10.00x), with "
                                  "residual 1.4 MiB (2.00x); mean KL 0.00213 nats"));
  server_->nodes[0].saved_dropped = true;
  server_->nodes[0].storage.stored_bytes = 0;
  server_->nodes[0].encodings.pop_back();
  EXPECT_THAT(Run({"show", "7f3a"}).out, HasSubstr("stored      - (the blocks as saved were dropped)\n"));
  const Json json = Json::parse(Run({"show", "7f3a", "--json"}).out);
  EXPECT_EQ(json["saved_dropped"], true);
  EXPECT_EQ(json["encodings"][0]["split"], 0);
  EXPECT_THAT(Run({"ls"}).out, HasSubstr("7f3a9c21     128  288.0 KiB  10.00x"));
  EXPECT_THAT(Run({"tree"}).out, HasSubstr("288.0 KiB  10.00x"));
}

TEST_F(EncodingCommandsTest, RestoreTakesBounds) {
  ASSERT_EQ(Run({"restore", "7f3a", "--exact-only"}).code, 0);
  ASSERT_EQ(Run({"restore", "7f3a", "--max-kl", "0.005", "--min-top1", "0.9"}).code, 0);
  ASSERT_EQ(Run({"restore", "7f3a"}).code, 0);
  EXPECT_TRUE(server_->restores[0].exact_only);
  EXPECT_FALSE(server_->restores[1].exact_only);
  EXPECT_EQ(server_->restores[1].budget, (client::FidelityBudget{.max_kl = 0.005, .min_top1 = 0.9}));
  EXPECT_EQ(server_->restores[2].budget, client::FidelityBudget());
  EXPECT_EQ(Run({"restore", "7f3a", "--exact-only", "--max-kl", "0.005"}).code, 2);
  EXPECT_EQ(Run({"restore", "7f3a", "--exact-only", "--min-top1", "0.9"}).code, 2);
}

TEST_F(EncodingCommandsTest, RestoreOfTheBitsThatWereSaved) {
  EXPECT_THAT(Run({"restore", "7f3a"}).out,
              AllOf(HasSubstr("state       exact: every bit as saved\n"), Not(HasSubstr("encoding")),
                    HasSubstr("check 0 us; estimated 9.0 ms without the check\n")));
  client::Proof& proof = server_->proof;
  proof.codec = "latent";
  proof.encoding = TestingEncoding(6, 0.05f);
  EXPECT_THAT(Run({"restore", "7f3a"}).out,
              AllOf(HasSubstr("state       exact: every bit as saved\n"),
                    HasSubstr("encoding    latent, split 6, step 0.05, profile 3eb8bc5a, with residual\n")));
}

TEST_F(EncodingCommandsTest, RestoreOfALatentSaysHowFarItIs) {
  client::Proof& proof = server_->proof;
  proof.exact = false;
  proof.codec = "latent";
  proof.encoding = TestingEncoding(6, 0.05f);
  proof.encoding->fidelity->probe_tokens = 119;
  proof.encoding->fidelity->next_token_kl = 0.0012;
  proof.layers_recomputed = 7;
  proof.check = {.outcome = client::CheckOutcome::kAsMeasured, .kl_divergence = 0.0012};
  proof.timing.replay = absl::Milliseconds(4);
  const Result result = Run({"restore", "7f3a"});
  EXPECT_THAT(
      result.out,
      AllOf(HasSubstr("reused      120 tokens (7 layers of them recomputed)\n"),
            HasSubstr("check       next-token distribution diverges as measured (KL 0.0012 nats)\n"),
            HasSubstr("read        1.1 MiB (latent), 2.6 MiB of K and V in memory\n"),
            HasSubstr("state       not exact: mean KL 0.00213 nats, largest 0.0341, top-1 98.4% over 119 tokens, "
                      "0.0012 after the "
                      "last\n"),
            HasSubstr("encoding    latent, split 6, step 0.05, profile 3eb8bc5a\n"), HasSubstr(", replay 4.0 ms")));
  const Json json = Json::parse(Run({"restore", "7f3a", "--json"}).out)["proof"];
  EXPECT_EQ(json["exact"], false);
  EXPECT_EQ(json["encoding"]["split"], 6);
  EXPECT_EQ(json["layers_recomputed"], 7);
  EXPECT_EQ(json["estimate_seconds"], 0.009);
  EXPECT_EQ(json["timing"]["replay_seconds"], 0.004);
  EXPECT_EQ(json["check"]["outcome"], "as_measured");
  EXPECT_EQ(
      ProofLine(proof),
      "120 tokens reused (7 layers of them recomputed), 0 recomputed; not exact; next-token distribution diverges "
      "as measured (KL 0.0012 nats); 1.1 MiB read in 12.3 ms");
  // A prefix of latents that was saved anew: nothing was measured of the whole.
  proof.encoding.reset();
  proof.check.outcome = client::CheckOutcome::kValuesAsMeasured;
  EXPECT_THAT(Run({"restore", "7f3a"}).out, AllOf(HasSubstr("state       not exact: how far was not measured\n"),
                                                  HasSubstr("check       decoded values as measured")));
}

}  // namespace
}  // namespace quicksave::cli
