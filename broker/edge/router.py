"""What reaches whom: subscriptions, groups that share one, retained messages, and rights."""

from collections.abc import Callable, Iterator

from broker.edge.accounts import Account
from broker.edge.limits import Counters, Limits
from broker.edge.message import Message
from broker.edge.packets import BadPacketError, Publish, Subscribe, TopicFilter
from broker.edge.reasons import Reason
from broker.edge.recorder import Recorder
from broker.edge.records import RetainedRecord, SubscriptionRecord
from broker.edge.session import Session
from broker.edge.share_group import ShareGroup
from broker.edge.subscriptions import Subscription, SubscriptionTable
from broker.edge.topic_filters import split_share
from broker.edge.topic_tree import TopicTree

_SEND_ALWAYS, _SEND_IF_NEW = 0, 1  # 3.8.3.1, Retain Handling

Fresh = dict[str, Subscription]  # by topic filters whose retained messages are wanted


class Retained:
    """What is retained on a topic, and which account it counts for; none: our own."""

    __slots__ = ("account", "message")

    def __init__(self, message: Message, account: Account | None) -> None:
        self.message = message
        self.account = account


class Router:
    """Routes messages to sessions. `clock` gives monotonic seconds."""

    def __init__(self, *, clock: Callable[[], float], limits: Limits, recorder: Recorder) -> None:
        self.counters = Counters()
        self.subscriptions = SubscriptionTable()
        self.retained: TopicTree[Retained] = TopicTree()
        self.groups: dict[str, ShareGroup] = {}
        self.last_message = 0
        self._now = clock
        self._limits = limits
        self._recorder = recorder

    # -- messages ---------------------------------------------------------------------------------

    def publish(self, publish: Publish, sender: Session) -> tuple[Reason, bool]:
        """Route a message if its sender may; return the reason code, and whether it waits.

        It waits when its PUBACK has to wait for the journal.
        """
        account = sender.account
        if not account.may_write(publish.topic):
            self.counters.refused += 1
            return Reason.NOT_AUTHORIZED, False
        return self.route(publish, sender)

    def route(self, publish: Publish, sender: Session) -> tuple[Reason, bool]:
        """Do so without looking at rights."""
        self.counters.received += 1
        message = self.numbered(publish, self._now())
        if publish.retain and not self._retain(message, sender.account):
            self.counters.refused += 1
            return Reason.QUOTA_EXCEEDED, False
        reason = self._deliver(message, sender)
        return reason, self._recorder.is_on and (publish.retain or bool(message.holders))

    def publish_own(self, topic: str, payload: bytes) -> None:
        """Publish and retain something of the MQTT broker's own."""
        message = self.numbered(Publish(topic, payload, 0, retain=True), self._now())
        self.retained.put(topic, None, Retained(message, None))
        self._deliver(message, None)

    def numbered(self, publish: Publish, came_at: float) -> Message:
        """Return a message with the next number."""
        self.last_message += 1
        return Message.of(self.last_message, publish, came_at)

    def _deliver(self, message: Message, sender: Session | None) -> Reason:
        """Give it to everybody who subscribes to its topic; return the reason code."""
        publish, dropped = message.publish, self.counters.dropped
        is_taken = False
        for every in self.subscriptions.routes(publish.topic):
            route = every.of_own if every.no_local and every.owner is sender else every  # 3.8.3-3
            if route is not None:
                is_taken = route.owner.offer(message, route, retain=publish.retain) or is_taken
        if message.holders:
            self._recorder.add_message(message)
        if is_taken:
            return Reason.SUCCESS
        if self.counters.dropped > dropped:
            return Reason.QUOTA_EXCEEDED
        return Reason.NO_MATCHING_SUBSCRIBERS

    # -- retained messages ------------------------------------------------------------------------

    def _retain(self, message: Message, account: Account) -> bool:
        """Keep it for those who subscribe later, or forget what was kept (3.3.1.3)."""
        topic, is_new = message.publish.topic, True
        before = self.retained.remove(topic, None)
        if before is not None:
            is_new = False
            self._count(before, -1)
        if message.publish.payload:
            if not account.may_retain(message.size):
                if before is not None:
                    self.restore_retained(before.message, before.account)
                return False
            self.restore_retained(message, account)
        elif is_new:
            return True
        self._recorder.add(self.retained_record(Retained(message, account)))
        return True

    def restore_retained(self, message: Message, account: Account | None) -> None:
        """Retain a message that counts for this account."""
        retained = Retained(message, account)
        self.retained.put(message.publish.topic, None, retained)
        self._count(retained, 1)

    @staticmethod
    def _count(retained: Retained, change: int) -> None:
        if retained.account is not None:
            retained.account.retained += change
            retained.account.queued_bytes += change * retained.message.size

    def retained_record(self, retained: Retained) -> RetainedRecord:
        """Return what has to be known of it."""
        message, account = retained.message, retained.account
        name = "" if account is None else account.grant.name
        return RetainedRecord(message.publish, self._recorder.unix(message.came_at), name)

    def send_retained(self, session: Session, fresh: Fresh) -> int:
        """Send what is retained on the topics just subscribed to; return how much that was."""
        first = self.last_message
        for pattern, subscription in fresh.items():
            for one in self.retained_on(pattern):
                # Each has its own number: a session may have this twice, and queues are in its order.
                message = self.numbered(one.message.publish, one.message.came_at)
                qos = min(message.publish.qos, subscription.qos)
                session.take(message, qos, retain=True, identifiers=subscription.identifiers)
                self._recorder.add_message(message)
        return self.last_message - first

    def retained_on(self, pattern: str) -> Iterator[Retained]:
        """Yield what is retained on the topics that a filter matches; what has expired goes."""
        now = self._now()
        for one in list(self.retained.matched_by(pattern)):
            expires_at = one.message.expires_at
            if expires_at is None or expires_at > now:
                yield one
            else:
                self.retained.remove(one.message.publish.topic, None)
                self._count(one, -1)

    # -- subscriptions ----------------------------------------------------------------------------

    def subscribe(self, session: Session, packet: Subscribe) -> tuple[list[int], Fresh]:
        """Add subscriptions; return a reason code for each, and those that want what is retained."""
        codes: list[int] = []
        fresh: Fresh = {}  # the same filter many times in one packet counts once
        for one in packet.filters:
            is_new = one.pattern not in session.subscriptions
            reason = self._refusal(session, one, is_new=is_new)
            codes.append(one.qos if reason is None else reason)
            if reason is not None:
                continue
            subscription = Subscription(
                session,
                one.qos,
                no_local=one.no_local,
                as_published=one.retain_as_published,
                identifier=packet.subscription_id,
            )
            name, pattern = self.add_subscription(session, one.pattern, subscription)
            handling = one.retain_handling
            is_wanted = handling == _SEND_ALWAYS or (is_new and handling == _SEND_IF_NEW)
            if name is None and is_wanted:
                fresh[pattern] = subscription
        return codes, fresh

    def _refusal(self, session: Session, one: TopicFilter, *, is_new: bool) -> Reason | None:
        try:
            name, _ = split_share(one.pattern)
        except ValueError:
            return Reason.TOPIC_FILTER_INVALID
        if name is not None and one.no_local:  # 3.8.3-4
            raise BadPacketError(Reason.PROTOCOL_ERROR)
        if not self.may_subscribe(session, one.pattern):
            return Reason.NOT_AUTHORIZED
        account = session.account
        if is_new and account.subscriptions >= account.grant.quotas.subscriptions:
            return Reason.QUOTA_EXCEEDED
        return None

    @staticmethod
    def may_subscribe(session: Session, filter_: str) -> bool:
        """Whether the session's account may read this; only services may share."""
        name, pattern = split_share(filter_)
        account = session.account
        return (name is None or account.grant.is_service) and account.may_read(pattern)

    def add_subscription(
        self, session: Session, filter_: str, subscription: Subscription
    ) -> tuple[str | None, str]:
        """Subscribe a session, or change its subscription; return the share name and the pattern."""
        name, pattern = split_share(filter_)
        session.account.subscriptions += filter_ not in session.subscriptions
        session.subscriptions[filter_] = subscription
        if session.is_kept:
            self._recorder.add(SubscriptionRecord(session.key, filter_, subscription.options))
        if name is None:
            self.subscriptions.add(pattern, subscription)
            return name, pattern
        group = self.groups.get(filter_)
        if group is None:
            group = self.groups[filter_] = ShareGroup(
                filter_,
                max_queued_bytes=self._limits.group_queued_bytes,
                recorder=self._recorder,
                on_drop=self.counters.drop,
            )
            self.subscriptions.add(pattern, Subscription(group, 2))  # its members' options count
        session.groups[filter_] = group
        group.join(session, subscription)
        return name, pattern

    def unsubscribe(self, session: Session, filter_: str) -> bool:
        """Remove a subscription; whether there was one."""
        if session.subscriptions.pop(filter_, None) is None:
            return False
        _, pattern = split_share(filter_)
        session.account.subscriptions -= 1
        if session.is_recorded:
            self._recorder.add(SubscriptionRecord(session.key, filter_, None))
        if session.groups.pop(filter_, None) is None:
            self.subscriptions.remove(pattern, session)
            return True
        group = self.groups[filter_]
        group.leave(session)
        if not len(group):
            self.subscriptions.remove(pattern, group)
            group.clear()
            del self.groups[filter_]
        return True
