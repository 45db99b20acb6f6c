// The page's words, in English and Chinese, and how numbers are written.

const WORDS = {
  en: {
    overview: 'Overview', sessions: 'Sessions', backends: 'Backends', limits: 'Limits', play: 'Play', views: 'Views',
    switch_language: '切换到中文', other_language: '中文',
    ready: 'Ready', not_ready: 'Not ready', draining: 'Draining', lost: 'No connection', up_for: 'up {0}',
    drain: 'Drain…', undrain: 'Call the drain off', kick: 'Kick…', cancel: 'Cancel', close: 'Close',
    connections: 'Connections', uids: 'Players logged in', received_per_s: 'Received / s', sent_per_s: 'Sent / s',
    median: 'Latency, median', p99: 'Latency, 99th percentile', messages_per_s: 'Messages per second',
    latency: 'Latency of requests', shard_load: 'Load of shards', bytes_per_s: 'Bytes per second',
    received: 'received', sent: 'sent', p50_short: 'median', p99_short: 'p99', shard_n: 'shard {0}:',
    shards: 'Shards', shard: 'Shard', cpu: 'CPU', turns: 'Turns / s', turn_p99: 'Turn, p99', outbox: 'Outbox',
    held: 'Held', kept: 'Kept', search: 'Search', search_hint: 'uid, address or id', state: 'State', any: 'any',
    opening: 'opening', working: 'working', closing: 'closing', sort: 'Order', previous: 'Previous', next: 'Next',
    shown: '{0}–{1} of {2} that match, {3} in all', none_shown: 'No session matches; {0} in all', missing: '; not answering: shard {0}', no_session: 'No sessions.',
    id: 'Id', uid: 'Uid', peer: 'Address', transport: 'Transport', age: 'Age', silent: 'Silent', in_flight: 'In flight',
    number: 'Number', dialect: 'Dialect', tls: 'TLS', listener: 'Listener', in_flight_bytes: 'Bytes in flight',
    outbox_bytes: 'Outbox, bytes', outbox_ms: 'Outbox waits', kept_bytes: 'Bytes kept', is_held: 'Held back',
    by_number: 'by number', by_age: 'oldest first', by_outbox: 'most in outbox', by_outbox_ms: 'outbox waiting longest',
    by_flight: 'most in flight', by_kept: 'most bytes kept', by_silent: 'silent longest',
    by_messages: 'most messages', by_received: 'most bytes received', by_sent: 'most bytes sent', messages: 'Messages',
    messages_in: 'Messages from it', messages_out: 'Messages to it', received_bytes: 'Bytes received', sent_bytes: 'Bytes sent',
    last_route: 'Last route', yes: 'yes', no: 'no',
    session: 'Session {0}', has_ended: 'This session has ended.',
    has_ended_by: 'This session has ended: {0} ({1}, after {2}).', end_peer: 'closed by the client', end_kick: 'kicked',
    end_heartbeat_timeout: 'no heartbeat came', end_idle: 'nothing came', end_handshake_timeout: 'no handshake came',
    end_protocol: 'against the protocol', end_refused: 'refused', end_slow_consumer: 'does not read what it is sent',
    end_outbox_age: 'has not read for too long', end_shutdown: 'the connector stops', end_memory: 'no memory is left for it',
    server_types: 'Server types', server_type: 'Server type', target: 'Carried by', up: 'Up', down: 'Down',
    answered: 'Answered', failed: 'Failed', timed_out: 'Timed out', rejected: 'Rejected', gone: 'Lost', lanes: 'Lanes',
    lane: 'Lane to', depth: 'Messages waiting', clusters: 'Clusters', cluster: 'Cluster', joined: 'Joined',
    coordinators: 'Coordinators', no_types: 'Nothing is forwarded.', no_lanes: 'No lanes.', no_clusters: 'Member of no cluster.',
    limits_met: 'Limits that were met', limit: 'Limit', times: 'Times', last_met: 'Last', closed: 'Connections closed',
    refused: 'Connections refused', reason: 'Reason', no_limits: 'No limit was met since the start.', nothing: 'None.',
    ask_kick: 'Kick session {0}?', ask_kick_text: 'The connection of {0} is closed at once. Nothing keeps the player from logging in again.',
    kick_reason: 'Reason told to the client (optional)', kick_yes: 'Kick', kicked: 'Session {0} was kicked.',
    ask_drain: 'Drain this connector?',
    ask_drain_text: 'Balancers are told to send nobody more. After its delay the process stops, and all players are disconnected.',
    drain_yes: 'Drain', drain_stops: 'Draining; it stops in {0} s.', drain_stays: 'Draining; it stays until it is stopped.',
    ask_token: 'Token', ask_token_text: 'Changes need the token of this admin server (admin.token). It is kept until this tab is closed.',
    token: 'Token', go_on: 'Go on', read_only: 'Nothing can be changed here: the admin server has no token.',
    failed_with: 'That did not work: {0}', retrying: 'The admin server does not answer; trying again.',
    not_ready_why: 'Not ready: {0}', chat: 'Chat', echo: 'Echo', load: 'Requests per second', off: 'off', per_s: '{0} / s',
    chat_hint: 'Join from two tabs, under two names. Each tab is a client of its own, by Pomelo’s protocol over WebSocket.',
    your_name: 'Your name', room: 'Room', join: 'Join', leave: 'Leave', message: 'Message', send: 'Send', text: 'Text',
    echo_hint: 'A request to connector.entryHandler.echo. Turn the load up and watch the plots.',
    answers_per_s: 'Answers / s', round_trip: 'Round trip, median', own_client: 'By any client of Pomelo’s:',
    joined_room: 'You are in {0}, with {1}.', alone: 'nobody else', came: '{0} has joined', went: '{0} has left',
    ended: 'The connection has ended.', was_kicked: 'You were kicked: {0}', no_game: 'The game’s port does not answer.',
    worker: 'workers', pomelo: 'Pomelo', pitaya: 'Pitaya', tcp: 'TCP', websocket: 'WebSocket',
  },
  zh: {
    overview: '概览', sessions: '会话', backends: '后端', limits: '限制', play: '试玩', views: '视图',
    switch_language: 'Switch to English', other_language: 'English',
    ready: '就绪', not_ready: '未就绪', draining: '排空中', lost: '连接中断', up_for: '已运行 {0}',
    drain: '排空…', undrain: '取消排空', kick: '踢下线…', cancel: '取消', close: '关闭',
    connections: '连接数', uids: '已登录玩家', received_per_s: '接收 / 秒', sent_per_s: '发送 / 秒',
    median: '延迟中位数', p99: '延迟 P99', messages_per_s: '每秒消息数',
    latency: '请求延迟', shard_load: '分片负载', bytes_per_s: '每秒字节数',
    received: '接收', sent: '发送', p50_short: '中位数', p99_short: 'P99', shard_n: '分片 {0}：',
    shards: '分片', shard: '分片', cpu: 'CPU', turns: '轮次 / 秒', turn_p99: '单轮耗时 P99', outbox: '发送队列',
    held: '暂缓读取', kept: '占用', search: '搜索', search_hint: 'uid、地址或 id', state: '状态', any: '全部',
    opening: '建立中', working: '正常', closing: '关闭中', sort: '排序', previous: '上一页', next: '下一页',
    shown: '第 {0}–{1} 条，匹配 {2} 条，共 {3} 个会话', none_shown: '没有匹配的会话，共 {0} 个', missing: '；未响应的分片：{0}', no_session: '没有会话。',
    id: 'ID', uid: 'UID', peer: '地址', transport: '传输', age: '存活时间', silent: '静默', in_flight: '处理中',
    number: '编号', dialect: '协议', tls: 'TLS', listener: '监听端口序号', in_flight_bytes: '处理中字节',
    outbox_bytes: '发送队列字节', outbox_ms: '队列等待', kept_bytes: '占用字节', is_held: '暂缓读取',
    by_number: '按编号', by_age: '存活最久', by_outbox: '发送队列最长', by_outbox_ms: '队列等待最久',
    by_flight: '处理中最多', by_kept: '占用字节最多', by_silent: '静默最久',
    by_messages: '消息最多', by_received: '接收字节最多', by_sent: '发送字节最多', messages: '消息数',
    messages_in: '收到的消息', messages_out: '发出的消息', received_bytes: '接收字节', sent_bytes: '发送字节',
    last_route: '最后路由', yes: '是', no: '否',
    session: '会话 {0}', has_ended: '该会话已结束。',
    has_ended_by: '该会话已结束：{0}（{1}，存活 {2}）。', end_peer: '客户端关闭', end_kick: '被踢下线',
    end_heartbeat_timeout: '心跳超时', end_idle: '长时间无数据', end_handshake_timeout: '握手超时',
    end_protocol: '违反协议', end_refused: '被拒绝', end_slow_consumer: '客户端不读取数据',
    end_outbox_age: '数据等待过久', end_shutdown: '连接器停止', end_memory: '内存配额用尽',
    server_types: '服务器类型', server_type: '类型', target: '承载方式', up: '在线', down: '离线',
    answered: '已应答', failed: '失败', timed_out: '超时', rejected: '拒绝', gone: '丢失', lanes: '转发队列',
    lane: '目标', depth: '排队消息', clusters: '集群', cluster: '集群', joined: '已加入',
    coordinators: '协调服务', no_types: '没有转发任何服务器类型。', no_lanes: '没有转发队列。', no_clusters: '未加入任何集群。',
    limits_met: '触发过的限制', limit: '限制', times: '次数', last_met: '最近一次', closed: '已关闭的连接',
    refused: '被拒绝的连接', reason: '原因', no_limits: '启动以来没有触发过限制。', nothing: '无。',
    ask_kick: '将会话 {0} 踢下线？', ask_kick_text: '{0} 的连接会立即关闭，之后玩家仍可重新登录。',
    kick_reason: '告知客户端的原因（可选）', kick_yes: '踢下线', kicked: '会话 {0} 已被踢下线。',
    ask_drain: '排空此连接服务器？',
    ask_drain_text: '负载均衡将不再分配新连接；等待时间过后进程退出，所有玩家会断开。',
    drain_yes: '排空', drain_stops: '排空中，{0} 秒后停止。', drain_stays: '排空中，需手动停止进程。',
    ask_token: '令牌', ask_token_text: '执行变更需要管理服务的令牌（admin.token）。仅保存到关闭此标签页为止。',
    token: '令牌', go_on: '继续', read_only: '只读：管理服务没有配置令牌。',
    failed_with: '操作失败：{0}', retrying: '管理服务没有响应，正在重试。',
    not_ready_why: '未就绪：{0}', chat: '聊天', echo: '回显', load: '每秒请求数', off: '关闭', per_s: '{0} / 秒',
    chat_hint: '打开两个标签页，用不同名字加入即可对话。每个标签页都是独立的客户端，通过 WebSocket 使用 Pomelo 协议。',
    your_name: '昵称', room: '房间', join: '加入', leave: '离开', message: '消息', send: '发送', text: '内容',
    echo_hint: '向 connector.entryHandler.echo 发送请求。调高负载，观察曲线变化。',
    answers_per_s: '应答 / 秒', round_trip: '往返延迟中位数', own_client: '也可使用任意 Pomelo 客户端：',
    joined_room: '你已进入 {0}，房间里有：{1}。', alone: '没有其他人', came: '{0} 加入了房间', went: '{0} 离开了房间',
    ended: '连接已断开。', was_kicked: '你被踢下线：{0}', no_game: '游戏端口没有响应。',
    worker: '工作线程', pomelo: 'Pomelo', pitaya: 'Pitaya', tcp: 'TCP', websocket: 'WebSocket',
  },
};

const STORED = 'shaddock-language';

/** What the browser keeps for this page, where it may keep something. */
export function stored(storage, key, value) {
  try {
    if (value === undefined) return storage.getItem(key);
    storage.setItem(key, value);
  } catch { /* It is asked again next time. */ }
  return value ?? null;
}

const kept = stored(localStorage, STORED);
export let language = kept in WORDS ? kept : /^zh\b/i.test(navigator.language) ? 'zh' : 'en';

/** A text, with what belongs into its places. */
export function word(key, ...values) {
  const text = WORDS[language][key] ?? WORDS.en[key] ?? key;
  return values.reduce((text, value, at) => text.replace(`{${at}}`, () => value), text);
}

export function switchLanguage() {
  language = language === 'en' ? 'zh' : 'en';
  stored(localStorage, STORED, language);
  translate();
}

/** Writes all fixed texts of the page. */
export function translate() {
  document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en';
  for (const it of document.querySelectorAll('[data-word]')) it.textContent = word(it.dataset.word);
  for (const it of document.querySelectorAll('[data-label]')) it.setAttribute('aria-label', word(it.dataset.label));
  for (const it of document.querySelectorAll('[data-hint]')) it.placeholder = word(it.dataset.hint);
  document.getElementById('language').textContent = word('other_language');
}

export function number(value) {
  if (value >= 1e6) return `${(value / 1e6).toPrecision(3)} M`;
  if (value >= 1e5) return `${Math.round(value / 1e3)} k`;
  return value.toLocaleString('en', { maximumFractionDigits: value < 10 && value % 1 !== 0 ? 1 : 0 });
}

export function bytes(value) {
  let unit = 0;
  while (value >= 1024 && unit < 4) [value, unit] = [value / 1024, unit + 1];
  const digits = unit === 0 || value >= 100 || value % 1 === 0 ? 0 : 1;
  return `${value.toFixed(digits)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB'][unit]}`;
}

export function micros(value) {
  if (value === null || value === undefined) return '–';
  if (value < 1000) return `${Math.round(value)} µs`;
  if (value < 1e6) return `${Number((value / 1e3).toPrecision(3))} ms`;
  return `${Number((value / 1e6).toPrecision(3))} s`;
}

export function percent(value) {
  return value === null || value === undefined ? '–' : `${Math.round(value * 100)} %`;
}

export function seconds(value) {
  const whole = Math.floor(value);
  const parts = [[86400, 'd'], [3600, 'h'], [60, 'm'], [1, 's']];
  const first = parts.findIndex(([size]) => whole >= size);
  if (first < 0) return '0 s';
  return parts.slice(first, first + 2).map(([size, unit], at) => {
    const count = Math.floor((at === 0 ? whole : whole % parts[first][0]) / size);
    return `${count} ${unit}`;
  }).filter((text, at) => at === 0 || !text.startsWith('0 ')).join(' ');
}
