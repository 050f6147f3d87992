//! An AMQP 0-9-1 server as a library.
//!
//! It knows connections, exchanges, queues and deliveries, and may never learn one word of tasks.
