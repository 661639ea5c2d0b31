// A reader of simple XML for tests of what the charts are made of: elements, attributes, text and the five entities.

#ifndef QUICKSAVE_SERVER_SIDECAR_METRICS_XML_TESTING_H_
#define QUICKSAVE_SERVER_SIDECAR_METRICS_XML_TESTING_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quicksave::metrics {

struct XmlElement {
  std::string name;
  std::map<std::string, std::string> attributes;
  std::string text;  // of the element itself, entities resolved
  std::vector<XmlElement> children;

  // All descendants of that name, in the document's order.
  std::vector<const XmlElement*> All(const std::string& descendant) const;
  // The attribute, or "" without it.
  std::string Attribute(const std::string& attribute) const;
};

// The one root element. INVALID_ARGUMENT, with the offset, for what is not well-formed: tags that do not match,
// attributes without quotes or given twice, a bare '<' or '&', anything after the root.
absl::StatusOr<XmlElement> ParseXml(absl::string_view xml);

}  // namespace quicksave::metrics

#endif  // QUICKSAVE_SERVER_SIDECAR_METRICS_XML_TESTING_H_
