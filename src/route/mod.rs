//! Route names and their dictionary codes.
