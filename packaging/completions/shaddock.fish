# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_shaddock_global_optspecs
    string join \n listen= full shards= driver= heartbeat= workers= admin= no-admin pomelo= pomelo-token= pomelo-listen= pomelo-timeout= server-id= log= log-format= h/help V/version
end

function __fish_shaddock_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_shaddock_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_shaddock_using_subcommand
    set -l cmd (__fish_shaddock_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c shaddock -n "__fish_shaddock_needs_command" -l listen -d 'Address for clients, by TCP or WebSocket: an IP address or name with its port, or a port by itself for all addresses; port 0 takes a free one' -r
complete -c shaddock -n "__fish_shaddock_needs_command" -l shards -d 'Threads that serve clients [default: one for each core]' -r
complete -c shaddock -n "__fish_shaddock_needs_command" -l driver -d 'I/O of the threads: ring, poll, or auto, which polls where there is no io_uring' -r
complete -c shaddock -n "__fish_shaddock_needs_command" -l heartbeat -d 'Seconds between heartbeats; 0 turns them off' -r
complete -c shaddock -n "__fish_shaddock_needs_command" -l workers -d 'Threads that handle the chat' -r
complete -c shaddock -n "__fish_shaddock_needs_command" -l admin -d 'Address of the admin server, with a page for browsers: figures, sessions, a chat to play' -r
complete -c shaddock -n "__fish_shaddock_needs_command" -l pomelo -d 'Forward the chat to the Node servers of a Pomelo cluster, whose master is there' -r
complete -c shaddock -n "__fish_shaddock_needs_command" -l pomelo-token -d 'The token of the connectors in the cluster\'s adminServer.json' -r
complete -c shaddock -n "__fish_shaddock_needs_command" -l pomelo-listen -d 'The address at which the cluster\'s servers call this one' -r
complete -c shaddock -n "__fish_shaddock_needs_command" -l pomelo-timeout -d 'Milliseconds that a call to the cluster may take' -r
complete -c shaddock -n "__fish_shaddock_needs_command" -l server-id -d 'The name of this server' -r
complete -c shaddock -n "__fish_shaddock_needs_command" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_needs_command" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_needs_command" -l full -d 'Turn the route dictionary and protobuf on'
complete -c shaddock -n "__fish_shaddock_needs_command" -l no-admin -d 'Serve no page, and nothing else to look at'
complete -c shaddock -n "__fish_shaddock_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_needs_command" -s V -l version -d 'Print version'
complete -c shaddock -n "__fish_shaddock_needs_command" -f -a "demo" -d 'Serve the demo app to any Pomelo client (the default)'
complete -c shaddock -n "__fish_shaddock_needs_command" -f -a "serve" -d 'Serve as a configuration file says; SIGHUP reads it again'
complete -c shaddock -n "__fish_shaddock_needs_command" -f -a "check" -d 'Tell what is wrong with a configuration file, without serving'
complete -c shaddock -n "__fish_shaddock_needs_command" -f -a "load" -d 'Load any server that speaks Pomelo\'s protocol, and report throughput and latency'
complete -c shaddock -n "__fish_shaddock_needs_command" -f -a "completions" -d 'Write the completions of a shell to stdout'
complete -c shaddock -n "__fish_shaddock_needs_command" -f -a "man" -d 'Write the man pages into a folder'
complete -c shaddock -n "__fish_shaddock_needs_command" -f -a "ctl" -d 'Look at a running `shaddock serve`, and steer it, by its admin server'
complete -c shaddock -n "__fish_shaddock_needs_command" -f -a "top" -d 'Watch a running connector on the terminal: shards, backends, sessions'
complete -c shaddock -n "__fish_shaddock_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l listen -d 'Address for clients, by TCP or WebSocket: an IP address or name with its port, or a port by itself for all addresses; port 0 takes a free one' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l shards -d 'Threads that serve clients [default: one for each core]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l driver -d 'I/O of the threads: ring, poll, or auto, which polls where there is no io_uring' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l heartbeat -d 'Seconds between heartbeats; 0 turns them off' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l workers -d 'Threads that handle the chat' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l admin -d 'Address of the admin server, with a page for browsers: figures, sessions, a chat to play' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l pomelo -d 'Forward the chat to the Node servers of a Pomelo cluster, whose master is there' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l pomelo-token -d 'The token of the connectors in the cluster\'s adminServer.json' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l pomelo-listen -d 'The address at which the cluster\'s servers call this one' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l pomelo-timeout -d 'Milliseconds that a call to the cluster may take' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l server-id -d 'The name of this server' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l full -d 'Turn the route dictionary and protobuf on'
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l no-admin -d 'Serve no page, and nothing else to look at'
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand serve" -l config -d 'The configuration file; shaddock.example.toml has every key' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand serve" -l driver -d 'I/O of the threads, instead of what the file says: auto, ring or poll' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand serve" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand serve" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand check" -l config -d 'The configuration file; shaddock.example.toml has every key' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand check" -l driver -d 'I/O of the threads, instead of what the file says: auto, ring or poll' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand check" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand check" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l addr -d 'The server to load; several addresses, which connections take in turn, have more ports' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l transport -d 'Transport to connect by' -r -f -a "tcp\t''
ws\t''"
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l driver -d 'I/O of the load client: ring, poll, or auto, which polls where there is no io_uring' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l route -d 'The route to ask' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l connections -d 'Connections' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l opening -d 'Connections that are being opened at a time [default: 128, in a storm all]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l rings -d 'Rings, each with a thread [default: as few as hold all connections]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l heartbeat -d 'Seconds between the heartbeats of a connection' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l pipeline -d 'Messages in flight on each connection' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l body-bytes -d 'Bytes of each message\'s body' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l seconds -d 'Seconds to measure' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l warmup -d 'Seconds to load before that' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l mode -d 'Work of each connection' -r -f -a "request\t'Send requests, and wait for their answers'
notify\t'Send notifies, with a request behind each `--pipeline` of them to count them by'
idle\t'Send heartbeats only'
storm\t'Send heartbeats only; after the warm-up all drop at once and come again'"
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l rate -d 'Messages a second over all connections: an open loop, with latency counted from when each message was due' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l login -d 'Log each connection in by the demo\'s entry route, as TEXT-0, TEXT-1 and so on' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l server-pid -d 'Tell the CPU time that this process took for each message' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l plot -d 'Draw the latencies into an SVG file' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l any-answer -d 'Take any answer; without it each has to be the request\'s own body'
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l json -d 'Print the report as JSON'
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand completions" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand completions" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand man" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand man" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand man" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -l socket -d 'The Unix socket of the admin server, `admin.socket` in its file' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -l address -d 'Its address by TCP instead, `admin.listen`, such as http://127.0.0.1:3011' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -l token-file -d 'A file that holds the token of `admin.token`, to change something by TCP' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -l json -d 'Print the answer as it is, for programs'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -f -a "status" -d 'Figures of the connector, its shards and its backends'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -f -a "backends" -d 'The server types behind it: servers up and down, what became of messages, lanes'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -f -a "events" -d 'Figures each second, limits that are met, and drains, until Ctrl-C'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -f -a "sessions" -d 'Sessions, those with the most of something first'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -f -a "session" -d 'One session'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -f -a "kick" -d 'Close a session, or all sessions of a uid'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -f -a "deny" -d 'Let nobody connect from an address, for a while'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -f -a "allow" -d 'Take a denial back'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -f -a "denied" -d 'The addresses that may not connect'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -f -a "closed" -d 'Sessions that have ended, the newest first, and why'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -f -a "record" -d 'Record what a client sends and gets'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -f -a "recordings" -d 'The recordings that there are'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -f -a "recording" -d 'Print a recording, or write it for Wireshark'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -f -a "drain" -d 'Tell balancers to send nobody more, close sessions a while later, and stop'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -f -a "undrain" -d 'Call a drain off, as long as it closes no sessions'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -f -a "log" -d 'Change the level of the log: off, error, warn, info, debug or trace'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -f -a "reload" -d 'Read the configuration again'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -f -a "health" -d 'Tell if clients may be sent there'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -f -a "metrics" -d 'The metrics as Prometheus gets them'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and not __fish_seen_subcommand_from status backends events sessions session kick deny allow denied closed record recordings recording drain undrain log reload health metrics help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from status" -l socket -d 'The Unix socket of the admin server, `admin.socket` in its file' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from status" -l address -d 'Its address by TCP instead, `admin.listen`, such as http://127.0.0.1:3011' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from status" -l token-file -d 'A file that holds the token of `admin.token`, to change something by TCP' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from status" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from status" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from status" -l json -d 'Print the answer as it is, for programs'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from backends" -l socket -d 'The Unix socket of the admin server, `admin.socket` in its file' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from backends" -l address -d 'Its address by TCP instead, `admin.listen`, such as http://127.0.0.1:3011' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from backends" -l token-file -d 'A file that holds the token of `admin.token`, to change something by TCP' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from backends" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from backends" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from backends" -l json -d 'Print the answer as it is, for programs'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from backends" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from events" -l count -d 'End after so many' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from events" -l socket -d 'The Unix socket of the admin server, `admin.socket` in its file' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from events" -l address -d 'Its address by TCP instead, `admin.listen`, such as http://127.0.0.1:3011' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from events" -l token-file -d 'A file that holds the token of `admin.token`, to change something by TCP' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from events" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from events" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from events" -l json -d 'Print the answer as it is, for programs'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from events" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from sessions" -l sort -d 'number, age_s, outbox_bytes, outbox_ms, in_flight, in_flight_bytes, kept_bytes, silent_ms, received_bytes, sent_bytes, messages or id' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from sessions" -l limit -d 'Sessions at most, up to 1000' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from sessions" -l offset -d 'Sessions to leave out in front' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from sessions" -l after -d 'Only those behind this one, in the order of ids: `next` of the answer before' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from sessions" -l uid -d 'Only those of this uid' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from sessions" -l state -d 'Only those in this state: opening, working or closing' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from sessions" -l search -d 'Only those with this text in their id, uid or address' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from sessions" -l socket -d 'The Unix socket of the admin server, `admin.socket` in its file' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from sessions" -l address -d 'Its address by TCP instead, `admin.listen`, such as http://127.0.0.1:3011' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from sessions" -l token-file -d 'A file that holds the token of `admin.token`, to change something by TCP' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from sessions" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from sessions" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from sessions" -l json -d 'Print the answer as it is, for programs'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from sessions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from session" -l socket -d 'The Unix socket of the admin server, `admin.socket` in its file' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from session" -l address -d 'Its address by TCP instead, `admin.listen`, such as http://127.0.0.1:3011' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from session" -l token-file -d 'A file that holds the token of `admin.token`, to change something by TCP' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from session" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from session" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from session" -l json -d 'Print the answer as it is, for programs'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from session" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from kick" -l uid -d 'All sessions of this uid' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from kick" -l reason -d 'The reason, which clients are told in a KICK package; without it they are closed only' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from kick" -l socket -d 'The Unix socket of the admin server, `admin.socket` in its file' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from kick" -l address -d 'Its address by TCP instead, `admin.listen`, such as http://127.0.0.1:3011' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from kick" -l token-file -d 'A file that holds the token of `admin.token`, to change something by TCP' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from kick" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from kick" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from kick" -l json -d 'Print the answer as it is, for programs'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from kick" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from deny" -l for -d 'The time, such as 10m; open connections stay' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from deny" -l socket -d 'The Unix socket of the admin server, `admin.socket` in its file' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from deny" -l address -d 'Its address by TCP instead, `admin.listen`, such as http://127.0.0.1:3011' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from deny" -l token-file -d 'A file that holds the token of `admin.token`, to change something by TCP' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from deny" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from deny" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from deny" -l json -d 'Print the answer as it is, for programs'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from deny" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from allow" -l socket -d 'The Unix socket of the admin server, `admin.socket` in its file' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from allow" -l address -d 'Its address by TCP instead, `admin.listen`, such as http://127.0.0.1:3011' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from allow" -l token-file -d 'A file that holds the token of `admin.token`, to change something by TCP' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from allow" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from allow" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from allow" -l json -d 'Print the answer as it is, for programs'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from allow" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from denied" -l socket -d 'The Unix socket of the admin server, `admin.socket` in its file' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from denied" -l address -d 'Its address by TCP instead, `admin.listen`, such as http://127.0.0.1:3011' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from denied" -l token-file -d 'A file that holds the token of `admin.token`, to change something by TCP' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from denied" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from denied" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from denied" -l json -d 'Print the answer as it is, for programs'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from denied" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from closed" -l reason -d 'Only those that ended so: peer, kick, heartbeat_timeout, idle, handshake_timeout, protocol, refused, slow_consumer, outbox_age, shutdown or memory' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from closed" -l uid -d 'Only those of this uid' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from closed" -l limit -d 'Sessions at most, up to 1000' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from closed" -l socket -d 'The Unix socket of the admin server, `admin.socket` in its file' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from closed" -l address -d 'Its address by TCP instead, `admin.listen`, such as http://127.0.0.1:3011' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from closed" -l token-file -d 'A file that holds the token of `admin.token`, to change something by TCP' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from closed" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from closed" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from closed" -l json -d 'Print the answer as it is, for programs'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from closed" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from record" -l uid -d 'The sessions of this uid instead; if there is none, the next that logs in' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from record" -l peer -d 'The sessions from this address instead; if there is none, the next that connects' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from record" -l bytes -d 'Bytes to keep, 65536 to 1048576; the oldest make room' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from record" -l seconds -d 'Stop after so many seconds, up to 3600' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from record" -l socket -d 'The Unix socket of the admin server, `admin.socket` in its file' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from record" -l address -d 'Its address by TCP instead, `admin.listen`, such as http://127.0.0.1:3011' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from record" -l token-file -d 'A file that holds the token of `admin.token`, to change something by TCP' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from record" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from record" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from record" -l next -d 'Wait for the next in any case'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from record" -l bodies -d 'Keep bodies that are JSON, without secrets; else only heads and lengths are kept'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from record" -l json -d 'Print the answer as it is, for programs'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from record" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from recordings" -l socket -d 'The Unix socket of the admin server, `admin.socket` in its file' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from recordings" -l address -d 'Its address by TCP instead, `admin.listen`, such as http://127.0.0.1:3011' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from recordings" -l token-file -d 'A file that holds the token of `admin.token`, to change something by TCP' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from recordings" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from recordings" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from recordings" -l json -d 'Print the answer as it is, for programs'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from recordings" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from recording" -l pcapng -d 'Write it to this file for Wireshark' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from recording" -l socket -d 'The Unix socket of the admin server, `admin.socket` in its file' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from recording" -l address -d 'Its address by TCP instead, `admin.listen`, such as http://127.0.0.1:3011' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from recording" -l token-file -d 'A file that holds the token of `admin.token`, to change something by TCP' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from recording" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from recording" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from recording" -l stop -d 'Record no more, and keep it'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from recording" -l forget -d 'Record no more, and forget it'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from recording" -l json -d 'Print the answer as it is, for programs'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from recording" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from drain" -l delay -d 'Time for balancers before anything is closed, such as 10s' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from drain" -l over -d 'Time over which sessions are closed evenly, such as 5m' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from drain" -l within -d 'Time for pending answers and saves then, such as 5s' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from drain" -l socket -d 'The Unix socket of the admin server, `admin.socket` in its file' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from drain" -l address -d 'Its address by TCP instead, `admin.listen`, such as http://127.0.0.1:3011' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from drain" -l token-file -d 'A file that holds the token of `admin.token`, to change something by TCP' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from drain" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from drain" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from drain" -l refuse-logins -d 'Close those who connect before sessions are closed'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from drain" -l json -d 'Print the answer as it is, for programs'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from drain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from undrain" -l socket -d 'The Unix socket of the admin server, `admin.socket` in its file' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from undrain" -l address -d 'Its address by TCP instead, `admin.listen`, such as http://127.0.0.1:3011' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from undrain" -l token-file -d 'A file that holds the token of `admin.token`, to change something by TCP' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from undrain" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from undrain" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from undrain" -l json -d 'Print the answer as it is, for programs'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from undrain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from log" -l socket -d 'The Unix socket of the admin server, `admin.socket` in its file' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from log" -l address -d 'Its address by TCP instead, `admin.listen`, such as http://127.0.0.1:3011' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from log" -l token-file -d 'A file that holds the token of `admin.token`, to change something by TCP' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from log" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from log" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from log" -l json -d 'Print the answer as it is, for programs'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from log" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from reload" -l socket -d 'The Unix socket of the admin server, `admin.socket` in its file' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from reload" -l address -d 'Its address by TCP instead, `admin.listen`, such as http://127.0.0.1:3011' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from reload" -l token-file -d 'A file that holds the token of `admin.token`, to change something by TCP' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from reload" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from reload" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from reload" -l json -d 'Print the answer as it is, for programs'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from reload" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from health" -l socket -d 'The Unix socket of the admin server, `admin.socket` in its file' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from health" -l address -d 'Its address by TCP instead, `admin.listen`, such as http://127.0.0.1:3011' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from health" -l token-file -d 'A file that holds the token of `admin.token`, to change something by TCP' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from health" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from health" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from health" -l json -d 'Print the answer as it is, for programs'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from health" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from metrics" -l socket -d 'The Unix socket of the admin server, `admin.socket` in its file' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from metrics" -l address -d 'Its address by TCP instead, `admin.listen`, such as http://127.0.0.1:3011' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from metrics" -l token-file -d 'A file that holds the token of `admin.token`, to change something by TCP' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from metrics" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from metrics" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from metrics" -l json -d 'Print the answer as it is, for programs'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from metrics" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from help" -f -a "status" -d 'Figures of the connector, its shards and its backends'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from help" -f -a "backends" -d 'The server types behind it: servers up and down, what became of messages, lanes'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from help" -f -a "events" -d 'Figures each second, limits that are met, and drains, until Ctrl-C'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from help" -f -a "sessions" -d 'Sessions, those with the most of something first'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from help" -f -a "session" -d 'One session'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from help" -f -a "kick" -d 'Close a session, or all sessions of a uid'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from help" -f -a "deny" -d 'Let nobody connect from an address, for a while'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from help" -f -a "allow" -d 'Take a denial back'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from help" -f -a "denied" -d 'The addresses that may not connect'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from help" -f -a "closed" -d 'Sessions that have ended, the newest first, and why'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from help" -f -a "record" -d 'Record what a client sends and gets'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from help" -f -a "recordings" -d 'The recordings that there are'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from help" -f -a "recording" -d 'Print a recording, or write it for Wireshark'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from help" -f -a "drain" -d 'Tell balancers to send nobody more, close sessions a while later, and stop'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from help" -f -a "undrain" -d 'Call a drain off, as long as it closes no sessions'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from help" -f -a "log" -d 'Change the level of the log: off, error, warn, info, debug or trace'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from help" -f -a "reload" -d 'Read the configuration again'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from help" -f -a "health" -d 'Tell if clients may be sent there'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from help" -f -a "metrics" -d 'The metrics as Prometheus gets them'
complete -c shaddock -n "__fish_shaddock_using_subcommand ctl; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c shaddock -n "__fish_shaddock_using_subcommand top" -l socket -d 'The Unix socket of the admin server, `admin.socket` in its file' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand top" -l address -d 'Its address by TCP instead, `admin.listen`, such as http://127.0.0.1:3011' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand top" -l token-file -d 'A file that holds the token of `admin.token`, to change something by TCP' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand top" -l sort -d 'Order of the sessions, those with the most first' -r -f -a "number\t'Those that came first'
age_s\t'The oldest first'
outbox_bytes\t'The most bytes that clients have not taken'
outbox_ms\t'The longest wait of such bytes'
in_flight\t'The most requests without an answer'
kept_bytes\t'The most bytes kept'
silent_ms\t'The longest silence'
messages\t'The most messages, both ways'
received_bytes\t'The most bytes received'
sent_bytes\t'The most bytes sent'"
complete -c shaddock -n "__fish_shaddock_using_subcommand top" -l every -d 'Seconds between two looks' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand top" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what the file of `serve` says]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand top" -l log-format -d 'Form of the log [default: text, or what the file of `serve` says]' -r -f -a "text\t'A line for people'
json\t'A JSON object in each line'"
complete -c shaddock -n "__fish_shaddock_using_subcommand top" -l once -d 'Print one screen as text, and end'
complete -c shaddock -n "__fish_shaddock_using_subcommand top" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and not __fish_seen_subcommand_from demo serve check load completions man ctl top help" -f -a "demo" -d 'Serve the demo app to any Pomelo client (the default)'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and not __fish_seen_subcommand_from demo serve check load completions man ctl top help" -f -a "serve" -d 'Serve as a configuration file says; SIGHUP reads it again'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and not __fish_seen_subcommand_from demo serve check load completions man ctl top help" -f -a "check" -d 'Tell what is wrong with a configuration file, without serving'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and not __fish_seen_subcommand_from demo serve check load completions man ctl top help" -f -a "load" -d 'Load any server that speaks Pomelo\'s protocol, and report throughput and latency'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and not __fish_seen_subcommand_from demo serve check load completions man ctl top help" -f -a "completions" -d 'Write the completions of a shell to stdout'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and not __fish_seen_subcommand_from demo serve check load completions man ctl top help" -f -a "man" -d 'Write the man pages into a folder'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and not __fish_seen_subcommand_from demo serve check load completions man ctl top help" -f -a "ctl" -d 'Look at a running `shaddock serve`, and steer it, by its admin server'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and not __fish_seen_subcommand_from demo serve check load completions man ctl top help" -f -a "top" -d 'Watch a running connector on the terminal: shards, backends, sessions'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and not __fish_seen_subcommand_from demo serve check load completions man ctl top help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and __fish_seen_subcommand_from ctl" -f -a "status" -d 'Figures of the connector, its shards and its backends'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and __fish_seen_subcommand_from ctl" -f -a "backends" -d 'The server types behind it: servers up and down, what became of messages, lanes'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and __fish_seen_subcommand_from ctl" -f -a "events" -d 'Figures each second, limits that are met, and drains, until Ctrl-C'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and __fish_seen_subcommand_from ctl" -f -a "sessions" -d 'Sessions, those with the most of something first'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and __fish_seen_subcommand_from ctl" -f -a "session" -d 'One session'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and __fish_seen_subcommand_from ctl" -f -a "kick" -d 'Close a session, or all sessions of a uid'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and __fish_seen_subcommand_from ctl" -f -a "deny" -d 'Let nobody connect from an address, for a while'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and __fish_seen_subcommand_from ctl" -f -a "allow" -d 'Take a denial back'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and __fish_seen_subcommand_from ctl" -f -a "denied" -d 'The addresses that may not connect'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and __fish_seen_subcommand_from ctl" -f -a "closed" -d 'Sessions that have ended, the newest first, and why'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and __fish_seen_subcommand_from ctl" -f -a "record" -d 'Record what a client sends and gets'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and __fish_seen_subcommand_from ctl" -f -a "recordings" -d 'The recordings that there are'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and __fish_seen_subcommand_from ctl" -f -a "recording" -d 'Print a recording, or write it for Wireshark'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and __fish_seen_subcommand_from ctl" -f -a "drain" -d 'Tell balancers to send nobody more, close sessions a while later, and stop'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and __fish_seen_subcommand_from ctl" -f -a "undrain" -d 'Call a drain off, as long as it closes no sessions'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and __fish_seen_subcommand_from ctl" -f -a "log" -d 'Change the level of the log: off, error, warn, info, debug or trace'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and __fish_seen_subcommand_from ctl" -f -a "reload" -d 'Read the configuration again'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and __fish_seen_subcommand_from ctl" -f -a "health" -d 'Tell if clients may be sent there'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and __fish_seen_subcommand_from ctl" -f -a "metrics" -d 'The metrics as Prometheus gets them'
