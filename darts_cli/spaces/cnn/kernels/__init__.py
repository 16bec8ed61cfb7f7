"""Functions with hand-written gradients, each beside its plain formula."""
