"""The natural testbed: pretrained parts, everyday requests, and a harmless topic that is forbidden."""
