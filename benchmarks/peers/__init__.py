"""The test suites of other libraries, run with this library's quantizers in their models."""
