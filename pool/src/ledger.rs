//! Who holds which address: free, assigned, cooling.
