"""The scenarios in which our broker differs from RabbitMQ on purpose: why, and our transcript.

The tests check both: that the transcripts differ, and that ours is the one in this file. `CONFORMANCE.md` lists these
departures for users.
"""

from typing import NamedTuple


class Departure(NamedTuple):
    reason: str
    ours: list


DEPARTURES = {
    "persistent_messages_into_a_durable_queue_without_a_sink": Departure(
        "The broker keeps messages in memory only: a persistent message into a durable queue that has no sink could be lost, so it is refused with a nack.",
        [
            "1/1 confirm.selectok",
            "1/1 queue.declareok queue='q' message_count=0 consumer_count=0",
            "1/1 confirms: 1 nack",
            "1/1 queue.declareok queue='q' message_count=0 consumer_count=0",
        ],
    ),
    "transactions": Departure(
        "The class tx is not implemented: 540.",
        [
            "1/0 connection.close reply_code=540 reply_text=NOT_IMPLEMENTED class_id=90 method_id=10",
            "1/0 the connection ended",
        ],
    ),
    "dead_letters": Departure(
        "Dead-lettering is not implemented: the declaration of a queue with it is refused.",
        [
            "1/0 connection.close reply_code=540 reply_text=NOT_IMPLEMENTED class_id=50 method_id=10",
            "1/0 the connection ended",
            "1/1 confirm.selectok",
            "1/1 queue.declareok queue='dead' message_count=0 consumer_count=0",
        ],
    ),
    "a_client_stops_the_flow": Departure(
        "A client may stop the flow of deliveries; RabbitMQ refuses that with 540.",
        [
            "1/1 queue.declareok queue='q' message_count=0 consumer_count=0",
            "1/1 confirm.selectok",
            "1/1 confirms: 2 ack",
            "1/2 channel.flowok active=False",
            "1/2 basic.consumeok consumer_tag='c'",
            "1/2 channel.flowok active=True",
            "1/2 basic.deliver consumer_tag='c' delivery_tag=1 redelivered=False exchange='' routing_key='q' body=b'0' properties=0000",
            "1/2 basic.deliver consumer_tag='c' delivery_tag=2 redelivered=False exchange='' routing_key='q' body=b'1' properties=0000",
        ],
    ),
    "the_properties_of_the_server": Departure(
        "Only PLAIN is offered, and neither consumer priorities nor direct reply-to.",
        [
            "0/0 mechanisms [b'PLAIN']",
            "0/0 capabilities ['authentication_failure_close', 'basic.nack', 'connection.blocked', 'consumer_cancel_notify', 'exchange_exchange_bindings', 'per_consumer_qos', 'publisher_confirms']",
        ],
    ),
    "the_headers_of_older_versions": Departure(
        "Only AMQP 0-9-1 is supported; RabbitMQ accepts the headers of 0-8 and 0-9.",
        [
            "0/0 b'AMQP\\x01\\x01\\x00\\t': ended",
            "0/0 b'AMQP\\x01\\x01\\x08\\x00': ended",
            "0/0 b'AMQP\\x01\\x01\\t\\x01': ended",
        ],
    ),
    "an_unknown_mechanism": Departure(
        "The client gets a Close with a reply code; RabbitMQ closes the connection without one.",
        [
            "0/0 version 0.9, locales b'en_US'",
            "0/0 offers PLAIN: True",
            "1/0 connection.close reply_code=530 reply_text=NOT_ALLOWED class_id=10 method_id=11",
            "1/0 the connection ended",
        ],
    ),
    "a_response_not_in_the_form_of_plain": Departure(
        "The client gets a Close with a reply code; RabbitMQ closes the connection without one.",
        [
            "0/0 version 0.9, locales b'en_US'",
            "0/0 offers PLAIN: True",
            "1/0 connection.close reply_code=502 reply_text=SYNTAX_ERROR class_id=10 method_id=11",
            "1/0 the connection ended",
        ],
    ),
    "tuning_beyond_the_offer": Departure(
        "The client gets a Close with a reply code; RabbitMQ closes the connection without one. Zero means `as offered`, as the specification says; RabbitMQ takes it for `no limit` and refuses it.",
        [
            "0/0 version 0.9, locales b'en_US'",
            "0/0 offers PLAIN: True",
            "0/0 version 0.9, locales b'en_US'",
            "0/0 offers PLAIN: True",
            "0/0 version 0.9, locales b'en_US'",
            "0/0 offers PLAIN: True",
            "0/0 version 0.9, locales b'en_US'",
            "0/0 offers PLAIN: True",
            "1/0 connection.tune channel_max=2047 frame_max=131072 heartbeat=60",
            "1/0 connection.close reply_code=530 reply_text=NOT_ALLOWED class_id=10 method_id=31",
            "1/0 the connection ended",
            "2/0 connection.tune channel_max=2047 frame_max=131072 heartbeat=60",
            "2/0 connection.close reply_code=530 reply_text=NOT_ALLOWED class_id=10 method_id=31",
            "2/0 the connection ended",
            "3/0 connection.tune channel_max=2047 frame_max=131072 heartbeat=60",
            "3/0 connection.close reply_code=530 reply_text=NOT_ALLOWED class_id=10 method_id=31",
            "3/0 the connection ended",
            "4/0 connection.tune channel_max=2047 frame_max=131072 heartbeat=60",
            "4/0 connection.openok known_hosts=''",
        ],
    ),
    "a_channel_beyond_the_agreed_number": Departure(
        "The Close names the method that caused it.",
        [
            "1/0 connection.close reply_code=530 reply_text=NOT_ALLOWED class_id=20 method_id=10",
            "1/0 the connection ended",
        ],
    ),
    "a_method_before_the_connection_is_open": Departure(
        "An invalid sequence of methods is 503 and names the method; RabbitMQ sends 505.",
        [
            "0/0 version 0.9, locales b'en_US'",
            "0/0 offers PLAIN: True",
            "1/0 connection.tune channel_max=2047 frame_max=131072 heartbeat=60",
            "1/0 connection.close reply_code=503 reply_text=COMMAND_INVALID class_id=20 method_id=10",
            "1/0 the connection ended",
        ],
    ),
    "the_handshake_out_of_order": Departure(
        "The client gets a Close with a reply code; RabbitMQ closes the connection without one.",
        [
            "0/0 version 0.9, locales b'en_US'",
            "0/0 offers PLAIN: True",
            "0/0 version 0.9, locales b'en_US'",
            "0/0 offers PLAIN: True",
            "1/0 connection.close reply_code=503 reply_text=COMMAND_INVALID class_id=10 method_id=40",
            "1/0 the connection ended",
            "2/0 connection.close reply_code=503 reply_text=COMMAND_INVALID class_id=10 method_id=31",
            "2/0 the connection ended",
        ],
    ),
    "messages_being_delivered_do_not_fill_a_queue": Departure(
        "A length limit drops messages only when new ones are published: requeued messages stay, even above the limit.",
        [
            "1/1 confirm.selectok",
            "1/1 queue.declareok queue='q' message_count=0 consumer_count=0",
            "1/1 confirms: 2 ack",
            "1/1 basic.getok delivery_tag=1 redelivered=False exchange='' routing_key='q' message_count=1 body=b'0' properties=0000",
            "1/1 basic.getok delivery_tag=2 redelivered=False exchange='' routing_key='q' message_count=0 body=b'1' properties=0000",
            "1/1 confirms: 4 ack",
            "1/1 queue.declareok queue='q' message_count=2 consumer_count=0",
            "1/1 basic.getok delivery_tag=3 redelivered=True exchange='' routing_key='q' message_count=3 body=b'0' properties=0000",
            "1/1 basic.getok delivery_tag=4 redelivered=True exchange='' routing_key='q' message_count=2 body=b'1' properties=0000",
            "1/1 basic.getok delivery_tag=5 redelivered=False exchange='' routing_key='q' message_count=1 body=b'2' properties=0000",
            "1/1 basic.getok delivery_tag=6 redelivered=False exchange='' routing_key='q' message_count=0 body=b'3' properties=0000",
            "1/1 basic.getempty cluster_id=''",
        ],
    ),
    "bindings_with_other_arguments_are_others": Departure(
        "The arguments of a binding are ignored, so two bindings that differ only in them are one.",
        [
            "1/1 confirm.selectok",
            "1/1 exchange.declareok",
            "1/1 queue.declareok queue='q' message_count=0 consumer_count=0",
            "1/1 queue.bindok",
            "1/1 queue.bindok",
            "1/1 queue.unbindok",
            "1/1 confirms: 1 ack",
            "1/1 basic.getempty cluster_id=''",
        ],
    ),
    "a_message_that_is_always_requeued": Departure(
        "A message is dropped when consumers have requeued it more often than the delivery limit allows (20): a consumer that requeues in a loop must not keep the process busy. RabbitMQ has such a limit for quorum queues only.",
        [
            "0/0 dropped after 21 deliveries",
            "1/1 queue.declareok queue='q' message_count=0 consumer_count=0",
            "1/1 confirm.selectok",
            "1/1 confirms: 1 ack",
            "1/2 basic.qosok",
            "1/2 basic.consumeok consumer_tag='c'",
            "1/2 basic.deliver consumer_tag='c' delivery_tag=1 redelivered=False exchange='' routing_key='q' body=b'0' properties=0000",
        ],
    ),
    "an_unknown_method": Departure(
        "The client gets a 503; RabbitMQ's connection process crashes.",
        [
            "1/0 connection.close reply_code=503 reply_text=COMMAND_INVALID class_id=60 method_id=99",
            "1/0 the connection ended",
            "2/0 connection.close reply_code=503 reply_text=COMMAND_INVALID class_id=99 method_id=10",
            "2/0 the connection ended",
            "3/0 connection.close reply_code=503 reply_text=COMMAND_INVALID class_id=50 method_id=0",
            "3/0 the connection ended",
        ],
    ),
    "a_method_cut_short": Departure(
        "Invalid fields in a complete frame are a syntax error, 502; RabbitMQ sends 501.",
        [
            "1/0 connection.close reply_code=502 reply_text=SYNTAX_ERROR class_id=50 method_id=10",
            "1/0 the connection ended",
        ],
    ),
    "a_method_frame_too_short_for_its_ids": Departure(
        "Invalid fields in a complete frame are a syntax error, 502; RabbitMQ sends 501.",
        [
            "1/0 connection.close reply_code=502 reply_text=SYNTAX_ERROR class_id=0 method_id=0",
            "1/0 the connection ended",
        ],
    ),
    "a_body_longer_than_its_header_said": Departure(
        "A body longer than announced is an error at once; RabbitMQ sends nothing.",
        [
            "0/0 ended: True",
            "1/0 connection.close reply_code=505 reply_text=UNEXPECTED_FRAME class_id=60 method_id=40",
            "1/0 the connection ended",
        ],
    ),
    "properties_cut_short": Departure(
        "A malformed header is the client's syntax error, 502, not an internal error.",
        [
            "0/0 ended: True",
            "1/0 connection.close reply_code=502 reply_text=SYNTAX_ERROR class_id=60 method_id=40",
            "1/0 the connection ended",
            "1/1 queue.declareok queue='q' message_count=0 consumer_count=0",
        ],
    ),
    "a_header_table_of_an_unknown_type": Departure(
        "A malformed header is the client's syntax error, 502, not an internal error.",
        [
            "0/0 ended: True",
            "1/0 connection.close reply_code=502 reply_text=SYNTAX_ERROR class_id=60 method_id=40",
            "1/0 the connection ended",
            "1/1 queue.declareok queue='q' message_count=0 consumer_count=0",
        ],
    ),
    "an_argument_table_of_an_unknown_type": Departure(
        "The client gets a 502; RabbitMQ's connection process crashes.",
        [
            "1/0 connection.close reply_code=502 reply_text=SYNTAX_ERROR class_id=50 method_id=10",
            "1/0 the connection ended",
        ],
    ),
    "a_heartbeat_on_a_channel": Departure(
        "The specification requires 501; RabbitMQ sends 505.",
        [
            "1/0 connection.close reply_code=501 reply_text=FRAME_ERROR class_id=0 method_id=0",
            "1/0 the connection ended",
        ],
    ),
    "an_exchange_of_type_headers": Departure(
        "There are direct, fanout and topic exchanges only.",
        [
            "1/0 connection.close reply_code=540 reply_text=NOT_IMPLEMENTED class_id=40 method_id=10",
        ],
    ),
    "an_alternate_exchange": Departure(
        "Alternate exchanges are not implemented: their declaration is refused.",
        [
            "1/0 connection.close reply_code=540 reply_text=NOT_IMPLEMENTED class_id=40 method_id=10",
        ],
    ),
    "queues_of_other_kinds": Departure(
        "Priorities and single active consumers are not implemented: the declaration of such a queue is refused.",
        [
            "1/0 connection.close reply_code=540 reply_text=NOT_IMPLEMENTED class_id=50 method_id=10",
            "2/0 connection.close reply_code=540 reply_text=NOT_IMPLEMENTED class_id=50 method_id=10",
        ],
    ),
    "header_tables_nested_too_deep": Departure(
        "Tables and arrays may be nested 32 deep: deeper ones could exhaust the stack of a parser.",
        [
            "1/0 connection.close reply_code=502 reply_text=SYNTAX_ERROR class_id=60 method_id=40",
            "1/0 the connection ended",
            "1/1 queue.declareok queue='q' message_count=0 consumer_count=0",
        ],
    ),
}
