-- Pomelo's packages and messages for Wireshark and tshark: on TCP, in WebSockets, and in what
-- `shaddock ctl recording ID --pcapng FILE` writes.
--
--   tshark -X lua_script:pomelo.lua -r session.pcapng
--   wireshark -X lua_script:pomelo.lua session.pcapng     (or put it into the plugins' folder)
--
-- Routes that are codes are named by the dictionary that a handshake's answer has, where that was
-- captured, else by the preference `dictionary`, such as `onChat=1,chat.chatHandler.send=2`.
--
-- See docs/protocol/wire.md for the format.

local pomelo = Proto("pomelo", "Pomelo")

local PACKAGES = {
    [1] = "handshake", [2] = "handshake ack", [3] = "heartbeat", [4] = "data", [5] = "kick",
}
local MESSAGES = { [0] = "request", [1] = "notify", [2] = "response", [3] = "push" }
local HEAD_LEN = 4

local f = pomelo.fields
f.package = ProtoField.uint8("pomelo.package", "Package", base.DEC, PACKAGES)
f.len = ProtoField.uint24("pomelo.len", "Length", base.DEC)
f.flag = ProtoField.uint8("pomelo.flag", "Flag", base.HEX)
f.kind = ProtoField.uint8("pomelo.message", "Message", base.DEC, MESSAGES, 0x0e)
f.coded = ProtoField.bool("pomelo.coded", "Route is a code", 8, nil, 0x01)
f.packed = ProtoField.bool("pomelo.compressed", "Body is compressed", 8, nil, 0x10)
f.failed = ProtoField.bool("pomelo.error", "Error (Pitaya)", 8, nil, 0x20)
f.id = ProtoField.uint32("pomelo.id", "Id", base.DEC)
f.code = ProtoField.uint16("pomelo.code", "Route's code", base.DEC)
f.route = ProtoField.string("pomelo.route", "Route")
f.body = ProtoField.string("pomelo.body", "Body")
f.bytes = ProtoField.bytes("pomelo.bytes", "Body")

local e_type = ProtoExpert.new("pomelo.bad_type", "This is no package", expert.group.MALFORMED,
    expert.severity.ERROR)
local e_cut = ProtoExpert.new("pomelo.cut", "Not all of it was captured", expert.group.COMMENTS_GROUP,
    expert.severity.NOTE)
pomelo.experts = { e_type, e_cut }

pomelo.prefs.ports = Pref.range("TCP ports", "3010", "Ports where connectors listen", 65535)
pomelo.prefs.dictionary = Pref.string("Dictionary", "",
    "Routes and their codes: onChat=1,chat.chatHandler.send=2")

-- Routes by code: of the preference, and of handshakes that were captured.
local preferred, captured = {}, {}
-- Routes of requests, by the stream and the id, so that answers are told by them.
local asked = {}
local ports = nil

local function register_ports()
    if ports == pomelo.prefs.ports then return end
    for _, name in ipairs({ "tcp.port", "ws.port" }) do
        local table = DissectorTable.get(name)
        if ports then table:remove(ports, pomelo) end
        table:add(pomelo.prefs.ports, pomelo)
    end
    ports = pomelo.prefs.ports
end

local function read_prefs()
    preferred = {}
    for route, code in pomelo.prefs.dictionary:gmatch("%s*([^=,%s]+)%s*=%s*(%d+)") do
        preferred[tonumber(code)] = route
    end
    register_ports()
end

pomelo.prefs_changed = read_prefs

function pomelo.init()
    captured, asked = {}, {}
    read_prefs()
end

-- The key of a connection in one direction, whose answers come in the other.
local function stream_of(pinfo, is_answer)
    local from = tostring(pinfo.src) .. ":" .. pinfo.src_port
    local to = tostring(pinfo.dst) .. ":" .. pinfo.dst_port
    if is_answer then from, to = to, from end
    return from .. ">" .. to
end

-- Takes the dictionary out of a handshake's answer. That is all of its JSON that is looked at.
local function learn(text, pinfo)
    local dict = text:match('"dict"%s*:%s*(%b{})')
    if not dict then return end
    local routes = {}
    for route, code in dict:gmatch('"([^"]+)"%s*:%s*(%d+)') do routes[tonumber(code)] = route end
    captured[stream_of(pinfo, true)] = routes
end

local function route_of(code, pinfo, is_from_server)
    local routes = captured[stream_of(pinfo, is_from_server)] or {}
    return routes[code] or preferred[code]
end

local function add_body(tree, range, len)
    if len == 0 then return end
    local bytes = range:bytes()
    local is_text = true
    for at = 0, math.min(bytes:len(), 4096) - 1 do
        local byte = bytes:get_index(at)
        if byte < 0x20 and byte ~= 9 and byte ~= 10 and byte ~= 13 then
            is_text = false
            break
        end
    end
    if is_text then
        tree:add(f.body, range, range:string(ENC_UTF_8))
    else
        tree:add(f.bytes, range)
    end
end

-- One message; what stands of it in the summary.
local function dissect_message(tvb, pinfo, tree)
    local len, at = tvb:len(), 1
    if len < 1 then return "data" end
    local flag = tvb(0, 1):uint()
    local kind = math.floor(flag / 2) % 8
    local flags = tree:add(f.flag, tvb(0, 1))
    flags:add(f.kind, tvb(0, 1))
    flags:add(f.coded, tvb(0, 1))
    flags:add(f.packed, tvb(0, 1))
    flags:add(f.failed, tvb(0, 1))
    local name = MESSAGES[kind]
    if not name then return "message of type " .. kind end
    local id, factor = 0, 1
    if kind % 2 == 0 then
        local first = at
        repeat
            if at >= len then return name end
            local byte = tvb(at, 1):uint()
            id = id + (byte % 128) * factor
            factor = factor * 128
            at = at + 1
        until byte < 128
        tree:add(f.id, tvb(first, at - first), id)
        name = name .. " " .. id
    end
    local route
    if kind ~= 2 then
        if flag % 2 == 1 then
            if at + 2 > len then return name end
            local code = tvb(at, 2):uint()
            tree:add(f.code, tvb(at, 2))
            route = route_of(code, pinfo, kind == 3)
            if route then tree:add(f.route, tvb(at, 2), route):set_generated() end
            route = route or ("code " .. code)
            at = at + 2
        else
            if at + 1 > len then return name end
            local route_len = math.min(tvb(at, 1):uint(), len - at - 1)
            route = tvb(at + 1, route_len):string(ENC_UTF_8)
            tree:add(f.route, tvb(at + 1, route_len), route)
            at = at + 1 + route_len
        end
        if kind == 0 then asked[stream_of(pinfo, false) .. id] = route end
    else
        route = asked[stream_of(pinfo, true) .. id]
        if route then tree:add(f.route, route):set_generated() end
    end
    if at < len then add_body(tree, tvb(at), len - at) end
    return route and (name .. " " .. route) or name
end

-- One package that begins there, and as much of it as was captured.
local function dissect_package(tvb, pinfo, root)
    local kind, len = tvb(0, 1):uint(), tvb(1, 3):uint()
    local here = math.min(len, tvb:len() - HEAD_LEN)
    local tree = root:add(pomelo, tvb(0, HEAD_LEN + here))
    tree:add(f.package, tvb(0, 1))
    tree:add(f.len, tvb(1, 3))
    local text = PACKAGES[kind]
    if not text then
        tree:add_proto_expert_info(e_type)
        return HEAD_LEN + here, "no package"
    end
    if here > 0 then
        local body = tvb(HEAD_LEN, here)
        if kind == 4 then
            text = dissect_message(body:tvb(), pinfo, tree)
        else
            add_body(tree, body, here)
            if kind == 1 then learn(body:string(ENC_UTF_8), pinfo) end
        end
    end
    if here < len then tree:add_proto_expert_info(e_cut) end
    tree:append_text(", " .. text .. ", " .. len .. " bytes")
    return HEAD_LEN + here, text
end

local http = Dissector.get("http")

-- True if the rest of a package may come in a later segment.
local function is_stream(pinfo)
    return pinfo.can_desegment > 0
end

function pomelo.dissector(tvb, pinfo, root)
    -- The request for a WebSocket comes to the same port.
    if tvb:len() > 0 and tvb(0, 1):uint() >= 0x20 then
        return http:call(tvb, pinfo, root)
    end
    pinfo.cols.protocol = "Pomelo"
    local at, texts = 0, {}
    while at < tvb:len() do
        local rest = tvb:len() - at
        local needed = HEAD_LEN
        if rest >= HEAD_LEN then needed = HEAD_LEN + tvb(at + 1, 3):uint() end
        if rest < needed and (rest < HEAD_LEN or is_stream(pinfo)) then
            if is_stream(pinfo) then
                pinfo.desegment_offset = at
                pinfo.desegment_len = rest < HEAD_LEN and DESEGMENT_ONE_MORE_SEGMENT or needed - rest
            end
            break
        end
        local consumed, text = dissect_package(tvb(at):tvb(), pinfo, root)
        texts[#texts + 1] = text
        at = at + consumed
    end
    if #texts > 0 then pinfo.cols.info = table.concat(texts, ", ") end
    return tvb:len()
end
