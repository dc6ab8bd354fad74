"""The test suites of diffusers and transformers, run with our quantizers in their models."""
