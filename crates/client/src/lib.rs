//! Speaks to a Farcall service (or any Globus Compute service): REST with retries, tokens, one supervised AMQP
//! connection.
//!
//! It may never decide what a message means: it carries.
