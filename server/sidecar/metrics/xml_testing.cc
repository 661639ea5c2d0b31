#include "server/sidecar/metrics/xml_testing.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace quicksave::metrics {
namespace {

class XmlReader {
 public:
  explicit XmlReader(absl::string_view xml) : xml_(xml) {}

  absl::StatusOr<XmlElement> Read() {
    XmlElement root = ReadElement();
    SkipSpace();
    if (at_ != xml_.size()) Fail("something after the root");
    if (!error_.empty()) return absl::InvalidArgumentError(error_);
    return root;
  }

 private:
  XmlElement ReadElement() {
    XmlElement element;
    if (!Take("<")) return Fail("an element"), element;
    element.name = ReadName();
    ReadAttributes(element);
    if (Take("/>")) return element;
    if (!Take(">")) return Fail("the end of a tag"), element;
    while (error_.empty() && !StartsWith("</")) {
      if (at_ == xml_.size()) return Fail("the end of an element"), element;
      if (StartsWith("<")) {
        element.children.push_back(ReadElement());
      } else {
        element.text += ReadCharacter();
      }
    }
    Take("</");
    if (ReadName() != element.name || !Take(">")) Fail("the end tag of " + element.name);
    return element;
  }

  void ReadAttributes(XmlElement& element) {
    for (SkipSpace(); error_.empty() && at_ < xml_.size() && !StartsWith(">") && !StartsWith("/>"); SkipSpace()) {
      const std::string name = ReadName();
      if (!Take("=\"")) return Fail("a quoted attribute");
      std::string value;
      while (error_.empty() && !Take("\"")) value += ReadCharacter();
      if (!element.attributes.emplace(name, value).second) Fail("an attribute once");
    }
  }

  std::string ReadName() {
    const size_t from = at_;
    while (at_ < xml_.size() && (absl::ascii_isalnum(xml_[at_]) || xml_[at_] == '-')) ++at_;
    if (at_ == from) Fail("a name");
    return std::string(xml_.substr(from, at_ - from));
  }

  std::string ReadCharacter() {
    static constexpr std::pair<const char*, const char*> kEntities[] = {
        {"&amp;", "&"}, {"&lt;", "<"}, {"&gt;", ">"}, {"&quot;", "\""}, {"&apos;", "'"}};
    for (const auto& [entity, character] : kEntities) {
      if (Take(entity)) return character;
    }
    if (at_ == xml_.size() || StartsWith("<") || StartsWith("&")) return Fail("a character"), "";
    return std::string(1, xml_[at_++]);
  }

  void SkipSpace() {
    while (at_ < xml_.size() && absl::ascii_isspace(xml_[at_])) ++at_;
  }

  bool StartsWith(absl::string_view text) const { return xml_.substr(at_, text.size()) == text; }

  bool Take(absl::string_view text) {
    if (!StartsWith(text)) return false;
    at_ += text.size();
    return true;
  }

  void Fail(const std::string& expected) {
    if (error_.empty()) error_ = absl::StrCat("at ", at_, ": expected ", expected);
  }

  absl::string_view xml_;
  size_t at_ = 0;
  std::string error_;
};

void Collect(const XmlElement& element, const std::string& name, std::vector<const XmlElement*>& found) {
  for (const XmlElement& child : element.children) {
    if (child.name == name) found.push_back(&child);
    Collect(child, name, found);
  }
}

}  // namespace

std::vector<const XmlElement*> XmlElement::All(const std::string& descendant) const {
  std::vector<const XmlElement*> found;
  Collect(*this, descendant, found);
  return found;
}

std::string XmlElement::Attribute(const std::string& attribute) const {
  const auto found = attributes.find(attribute);
  return found == attributes.end() ? "" : found->second;
}

absl::StatusOr<XmlElement> ParseXml(absl::string_view xml) { return XmlReader(xml).Read(); }

}  // namespace quicksave::metrics
