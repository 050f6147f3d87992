//! Every byte that crosses between Farcall's parties: ids, messages, payload framing, REST bodies, queue names.
//!
//! It is the contract, so it can be tested by bytes alone. It may never do IO, wait, read a clock or draw an id.
