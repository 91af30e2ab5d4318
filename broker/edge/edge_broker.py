"""The MQTT broker: who is connected, what each packet of theirs does, and how long sessions last."""

# long: one branch for each packet of the specification

import heapq
import math
from collections.abc import Callable
from functools import partial

from broker.edge import answers, crowd
from broker.edge.accounts import Account, Authenticate, Credentials, Grant
from broker.edge.connection import Connection
from broker.edge.limits import Limits
from broker.edge.packets import (
    DISCONNECT,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    V5,
    BadPacketError,
    Connect,
    Packet,
    Publish,
    Signal,
    Subscribe,
    Unsubscribe,
)
from broker.edge.reasons import Reason
from broker.edge.recorder import Recorder
from broker.edge.records import EndedRecord, ReceivedRecord
from broker.edge.router import Router
from broker.edge.session import Session
from broker.edge.topic_filters import is_topic_name

_KEEP_ALIVE_FACTOR = 1.5  # 3.1.2-22
_RETAINED_PER_CREDIT = 50  # so many retained messages cost what one PUBLISH does
_NOT_FOUND = Reason.PACKET_ID_NOT_FOUND


class EdgeBroker:
    """One MQTT broker. `clock` gives monotonic seconds, `name` an id for a client without one."""

    def __init__(
        self,
        *,
        authenticate: Authenticate,
        clock: Callable[[], float],
        name: Callable[[], str],
        limits: Limits,
        recorder: Recorder,
    ) -> None:
        self.limits = limits
        self.recorder = recorder
        self.router = Router(clock=clock, limits=limits, recorder=recorder)
        self.now = clock
        self.write_now: Callable[[], None] = lambda: None  # by its host, in the middle of a packet
        self.connections: dict[Connection, None] = {}
        self._strangers: dict[Connection, None] = {}  # who have not said who they are
        self.sessions: dict[tuple[str, str], Session] = {}
        self.accounts: dict[str, Account] = {}
        self.last_session = 0
        self._authenticate = authenticate
        self._name = name
        self._dirty: dict[Connection, None] = {}
        self._holding: dict[Connection, None] = {}
        self._due: list[tuple[float, int, Session]] = []
        self._handlers: dict[object, Callable[..., None]] = {
            Publish: self._publish,
            PUBACK: self._puback,
            PUBREC: self._pubrec,
            PUBREL: self._pubrel,
            PUBCOMP: self._pubcomp,
            Subscribe: self._subscribe,
            Unsubscribe: self._unsubscribe,
            PINGREQ: self._ping,
            DISCONNECT: self._disconnect,
        }

    # -- what its host calls ----------------------------------------------------------------------

    def open(self) -> Connection:
        """A client has connected."""
        connection = Connection(self)
        self.connections[connection] = self._strangers[connection] = None
        if len(self._strangers) > self.limits.strangers:
            next(iter(self._strangers)).close(Reason.MAX_CONNECT_TIME)
        return connection

    def take_dirty(self) -> dict[Connection, None]:
        """Return the connections that have something to write, or are over."""
        dirty = self._dirty
        if dirty:
            self._dirty = {}
        return dirty

    def tick(self) -> None:
        """Close who is silent, end what has expired, publish wills that are due; once a second."""
        now = self.now()
        for connection in list(self._strangers):
            if now - connection.opened_at > self.limits.connect_timeout_s:
                connection.close(Reason.MAX_CONNECT_TIME)
        for connection in list(self.connections):
            silence_s = now - max(connection.heard_at, connection.paused_until)
            if 0 < connection.keep_alive_s * _KEEP_ALIVE_FACTOR < silence_s:
                connection.close(Reason.KEEP_ALIVE_TIMEOUT)
        while self._due and self._due[0][0] <= now:
            at, _, session = heapq.heappop(self._due)
            if at == session.due_at:
                session.due_at = math.inf
            if session.will_at is not None and session.will_at <= now:
                self._publish_will(session)
            if session.expires_at is not None:
                if session.expires_at <= now:
                    self.end(session)
                else:
                    self.schedule(session)

    def committed(self, batch: int) -> None:
        """The journal has this batch and all before it."""
        self.recorder.committed = batch
        for connection in list(self._holding):
            if connection.committed(batch):
                self._holding.pop(connection, None)

    # -- what connections call --------------------------------------------------------------------

    def mark(self, connection: Connection) -> None:
        """This connection has something to write, or is over."""
        self._dirty[connection] = None

    def hold(self, connection: Connection) -> None:
        """An answer of it waits for the journal."""
        self._holding[connection] = None

    def handle(self, connection: Connection, packet: Packet) -> None:
        """A packet has come."""
        session = connection.session
        if session is None:
            assert isinstance(packet, Connect)  # `PacketReader` takes no other first
            self._connect(connection, packet)
        elif isinstance(packet, int):
            _acknowledged(session, packet)
        else:
            kind = packet.kind if isinstance(packet, Signal) else type(packet)
            self._handlers[kind](connection, session, packet)

    def disconnected(self, connection: Connection) -> None:
        """The network connection is over: the session stays for as long as was agreed."""
        self.connections.pop(connection, None)
        self._strangers.pop(connection, None)
        self._holding.pop(connection, None)
        self.mark(connection)
        session = connection.session
        if session is None or session.link is not connection:
            return
        session.account.connections -= 1
        session.detach()
        if session.will_at is not None and session.will_at <= self.now():
            self._publish_will(session)
        if session.expiry_s:
            self.schedule(session)
            self._record(session)
        else:
            self.end(session)

    # -- who comes, and stays ---------------------------------------------------------------------

    def _connect(self, connection: Connection, packet: Connect) -> None:
        connection.introduce(packet)
        if packet.authentication_method is not None:
            connection.close(Reason.BAD_AUTHENTICATION_METHOD)
        elif not packet.client_id and connection.version != V5 and not packet.clean_start:
            connection.close(Reason.CLIENT_ID_NOT_VALID)  # MQTT 3.1.1, 3.1.3-8
        else:
            credentials = Credentials(
                client_id=packet.client_id, username=packet.username, password=packet.password
            )
            self._authenticate(credentials, partial(self._authenticated, connection, packet))

    def _authenticated(self, connection: Connection, packet: Connect, grant: Grant | None) -> None:
        if connection.is_closed:
            return
        if grant is None:
            has_name = packet.username is not None
            connection.close(
                Reason.BAD_USER_NAME_OR_PASSWORD if has_name else Reason.NOT_AUTHORIZED
            )
            return
        account = self.accounts.setdefault(grant.name, Account(grant))
        account.renew(grant)
        if packet.will is not None and not account.may_write(packet.will.topic):
            connection.close(Reason.NOT_AUTHORIZED)
            return
        client_id = packet.client_id or self._name()
        session = self.sessions.get((grant.name, client_id))
        if session is not None and isinstance(session.link, Connection):  # 3.1.4-3
            session.link.close(Reason.SESSION_TAKEN_OVER)
        session = self.sessions.get((grant.name, client_id))
        if session is not None and packet.clean_start:
            self.end(session)
            session = None
        if account.connections >= grant.quotas.connections:
            connection.close(Reason.QUOTA_EXCEEDED)
            return
        if session is None and account.sessions >= grant.quotas.connections:
            self._end_oldest(account)
        is_present = session is not None
        session = session or self.new_session(account, client_id)
        self._admit(connection, packet, session, is_present=is_present)

    def _admit(
        self,
        connection: Connection,
        packet: Connect,
        session: Session,
        *,
        is_present: bool,
    ) -> None:
        for pattern in list(session.subscriptions):  # the account may have lost rights
            if not self.router.may_subscribe(session, pattern):
                self.router.unsubscribe(session, pattern)
        session.account.connections += 1
        asked_s, most_s = packet.session_expiry_s, self.limits.max_session_expiry_s
        if connection.version != V5:
            asked_s = 0 if packet.clean_start else most_s
        session.expiry_s = min(asked_s, most_s)
        session.will, session.will_delay_s = packet.will, packet.will_delay_s
        connection.session = session
        self._strangers.pop(connection, None)
        session.attach(connection)
        self._record(session)
        answer = answers.connack(
            connection.version,
            self.limits,
            is_present=is_present,
            assigned_id=None if packet.client_id else session.client_id,
            expiry_s=None if asked_s == session.expiry_s else session.expiry_s,
            takes_crowds=_takes_crowds(connection, session),
        )
        connection.answer(answer, waits=True)  # also for that an older session is over
        session.pump()

    def new_session(self, account: Account, client_id: str, number: int = 0) -> Session:
        """Begin a session, or restore the one with this number."""
        if not number:
            self.last_session += 1
        session = Session(
            number or self.last_session,
            account,
            client_id,
            recorder=self.recorder,
            clock=self.now,
            on_drop=self.router.counters.drop,
        )
        self.sessions[account.grant.name, client_id] = session
        account.sessions += 1
        return session

    def _end_oldest(self, account: Account) -> None:
        """End the session of an account that has been without a connection for longest."""
        gone = [
            (one.expires_at - one.expiry_s, int(one.key), one)
            for one in self.sessions.values()
            if one.account is account and one.expires_at is not None
        ]
        if gone:
            self.end(min(gone)[-1])

    def schedule(self, session: Session) -> None:
        """Have `tick` look at a session that is without a connection."""
        at = min(one for one in (session.will_at, session.expires_at) if one is not None)
        if at >= session.due_at:
            return
        session.due_at = at
        heapq.heappush(self._due, (at, int(session.key), session))
        if len(self._due) > 2 * len(self.sessions) + 100:  # most are of sessions that have ended
            self._due = [due for due in self._due if due[0] == due[-1].due_at]
            heapq.heapify(self._due)

    def _publish_will(self, session: Session) -> None:
        will, session.will, session.will_at = session.will, None, None
        if will is not None:
            self.router.route(will, session)  # its right was looked at when the client connected
            self._record(session)

    def end(self, session: Session) -> None:
        """A session ends (4.1), and its will is published if that was still to come."""
        session.expires_at = None
        if session.will_at is not None:
            self._publish_will(session)
        session.due_at = -math.inf
        session.account.sessions -= 1
        for pattern in list(session.subscriptions):
            self.router.unsubscribe(session, pattern)
        session.clear()
        self.sessions.pop((session.account.grant.name, session.client_id), None)
        if session.is_recorded:
            session.is_recorded = False
            self.recorder.add(EndedRecord(session.key))

    def _record(self, session: Session) -> None:
        if session.is_kept or session.is_recorded:
            session.is_recorded = True
            self.recorder.add(session.record())

    # -- what clients send ------------------------------------------------------------------------

    def _publish(self, connection: Connection, session: Session, publish: Publish) -> None:
        if publish.topic_alias:
            self._resolve_alias(connection, publish)
        account = session.account
        if publish.topic not in account.known_topics and not is_topic_name(publish.topic):
            is_empty = not publish.topic  # 3.3.2.1
            raise BadPacketError(Reason.PROTOCOL_ERROR if is_empty else Reason.TOPIC_NAME_INVALID)
        self._charge(connection, account)
        if not publish.qos:
            self.router.publish(publish, session)
            return
        packet_id, version = publish.packet_id, connection.version
        is_repeat = publish.qos == 2 and packet_id in session.received  # 4.3.3-10
        unanswered = connection.unanswered + len(session.received)
        if version == V5 and not is_repeat and unanswered >= self.limits.receive_maximum:
            raise BadPacketError(Reason.RECEIVE_MAX_EXCEEDED)
        if publish.topic == crowd.TOPIC and _takes_crowds(connection, session):
            route = partial(self.router.publish, sender=session)
            differing, waits = crowd.publish_crowd(publish, route, self.write_now)
            connection.answer(answers.crowd_ack(packet_id, differing), waits=waits, is_ack=True)
            return
        reason, waits = Reason.SUCCESS, False
        if not is_repeat:
            reason, waits = self.router.publish(publish, session)
        if publish.qos == 1:
            answer = answers.ack(version, PUBACK, packet_id, reason)
            connection.answer(answer, waits=waits, is_ack=True)
            return
        if not reason.is_failure and not is_repeat:
            self._receive(session, packet_id, is_held=True)
        answer = answers.ack(version, PUBREC, packet_id, reason)
        connection.answer(answer, waits=waits or session.is_kept)

    def _charge(self, connection: Connection, account: Account, work: int = 1) -> None:
        """Count what a client has an account do; what is more than its quota has to wait."""
        account.credit -= work
        if account.credit < 0 and (wait_s := account.wait_s(self.now())):
            connection.paused_until = self.now() + wait_s
            self.router.counters.waits += 1

    def _resolve_alias(self, connection: Connection, publish: Publish) -> None:
        """Find the topic of a topic alias, or give it one (3.3.2.3.4)."""
        alias = publish.topic_alias
        if alias > self.limits.topic_aliases:
            raise BadPacketError(Reason.TOPIC_ALIAS_INVALID)
        if publish.topic:
            connection.aliases[alias] = publish.topic
        publish.topic = connection.aliases.get(alias, "")

    def _receive(self, session: Session, packet_id: int, *, is_held: bool) -> None:
        """Keep that a message of QoS 2 has come, until the client releases its packet id (4.3.3)."""
        change = session.received.add if is_held else session.received.discard
        change(packet_id)
        if session.is_kept:
            self.recorder.add(ReceivedRecord(session.key, packet_id, is_held))

    def _pubrel(self, connection: Connection, session: Session, packet: Signal) -> None:
        packet_id, is_known = packet.packet_id, packet.packet_id in session.received
        if is_known:
            self._receive(session, packet_id, is_held=False)
        reason = Reason.SUCCESS if is_known else _NOT_FOUND
        answer = answers.ack(connection.version, PUBCOMP, packet_id, reason)
        connection.answer(answer, waits=is_known and session.is_kept)

    def _puback(self, _: Connection, session: Session, packet: Signal) -> None:
        _acknowledged(session, packet.packet_id)

    def _pubrec(self, connection: Connection, session: Session, packet: Signal) -> None:
        packet_id = packet.packet_id
        match session.qos_of(packet_id):
            case None:
                answer = answers.ack(connection.version, PUBREL, packet_id, _NOT_FOUND)
                connection.answer(answer, waits=False)
            case 1:
                raise BadPacketError(Reason.PROTOCOL_ERROR)
            case _ if packet.reason >= Reason.UNSPECIFIED_ERROR:
                session.acknowledged(packet_id)
            case _:
                session.release(packet_id)
                connection.release(packet_id)

    def _pubcomp(self, _: Connection, session: Session, packet: Signal) -> None:
        session.acknowledged(packet.packet_id, complete=True)

    def _subscribe(self, connection: Connection, session: Session, packet: Subscribe) -> None:
        self._charge(connection, session.account, len(packet.filters))
        codes, fresh = self.router.subscribe(session, packet)
        answer = answers.suback(connection.version, packet.packet_id, codes)
        connection.answer(answer, waits=session.is_kept)
        sent = self.router.send_retained(session, fresh)
        self._charge(connection, session.account, sent // _RETAINED_PER_CREDIT)

    def _unsubscribe(self, connection: Connection, session: Session, packet: Unsubscribe) -> None:
        self._charge(connection, session.account, len(packet.patterns))
        codes = [
            Reason.SUCCESS
            if self.router.unsubscribe(session, pattern)
            else Reason.NO_SUBSCRIPTION_EXISTED
            for pattern in packet.patterns
        ]
        answer = answers.unsuback(connection.version, packet.packet_id, codes)
        connection.answer(answer, waits=session.is_kept)

    def _ping(self, connection: Connection, session: Session, _: Signal) -> None:
        self._charge(connection, session.account)
        connection.answer(answers.PINGRESP, waits=False)

    def _disconnect(self, connection: Connection, session: Session, packet: Signal) -> None:
        expiry_s = packet.session_expiry_s
        if expiry_s is not None:
            if expiry_s and not session.expiry_s:  # 3.14.2-2
                raise BadPacketError(Reason.PROTOCOL_ERROR)
            session.expiry_s = min(expiry_s, self.limits.max_session_expiry_s)
        if not packet.reason:  # not «with will message»
            session.will = None
        connection.lost()


def _takes_crowds(connection: Connection, session: Session) -> bool:
    return session.account.grant.is_service and connection.takes_user_properties


def _acknowledged(session: Session, packet_id: int) -> None:
    if session.qos_of(packet_id) == 2:
        raise BadPacketError(Reason.PROTOCOL_ERROR)
    session.acknowledged(packet_id)
