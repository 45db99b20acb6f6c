# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_shaddock_global_optspecs
    string join \n listen= full shards= heartbeat= workers= pomelo= pomelo-token= pomelo-listen= pomelo-timeout= server-id= log= h/help V/version
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
complete -c shaddock -n "__fish_shaddock_needs_command" -l heartbeat -d 'Seconds between heartbeats; 0 turns them off' -r
complete -c shaddock -n "__fish_shaddock_needs_command" -l workers -d 'Threads that handle the chat' -r
complete -c shaddock -n "__fish_shaddock_needs_command" -l pomelo -d 'Forward the chat to the Node servers of a Pomelo cluster, whose master is there' -r
complete -c shaddock -n "__fish_shaddock_needs_command" -l pomelo-token -d 'The token of the connectors in the cluster\'s adminServer.json' -r
complete -c shaddock -n "__fish_shaddock_needs_command" -l pomelo-listen -d 'The address at which the cluster\'s servers call this one' -r
complete -c shaddock -n "__fish_shaddock_needs_command" -l pomelo-timeout -d 'Milliseconds that a call to the cluster may take' -r
complete -c shaddock -n "__fish_shaddock_needs_command" -l server-id -d 'The name of this server' -r
complete -c shaddock -n "__fish_shaddock_needs_command" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace' -r
complete -c shaddock -n "__fish_shaddock_needs_command" -l full -d 'Turn the route dictionary and protobuf on'
complete -c shaddock -n "__fish_shaddock_needs_command" -s h -l help -d 'Print help'
complete -c shaddock -n "__fish_shaddock_needs_command" -s V -l version -d 'Print version'
complete -c shaddock -n "__fish_shaddock_needs_command" -f -a "demo" -d 'Serve the demo app to any Pomelo client (the default)'
complete -c shaddock -n "__fish_shaddock_needs_command" -f -a "serve" -d 'Serve as a configuration file says; SIGHUP reads it again'
complete -c shaddock -n "__fish_shaddock_needs_command" -f -a "check" -d 'Tell what is wrong with a configuration file, without serving'
complete -c shaddock -n "__fish_shaddock_needs_command" -f -a "load" -d 'Load any server that speaks Pomelo\'s protocol, and report throughput and latency'
complete -c shaddock -n "__fish_shaddock_needs_command" -f -a "completions" -d 'Write the completions of a shell to stdout'
complete -c shaddock -n "__fish_shaddock_needs_command" -f -a "man" -d 'Write the man pages into a folder'
complete -c shaddock -n "__fish_shaddock_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l listen -d 'Address for clients, by TCP or WebSocket: an IP address or name with its port, or a port by itself for all addresses; port 0 takes a free one' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l shards -d 'Threads that serve clients [default: one for each core]' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l heartbeat -d 'Seconds between heartbeats; 0 turns them off' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l workers -d 'Threads that handle the chat' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l pomelo -d 'Forward the chat to the Node servers of a Pomelo cluster, whose master is there' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l pomelo-token -d 'The token of the connectors in the cluster\'s adminServer.json' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l pomelo-listen -d 'The address at which the cluster\'s servers call this one' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l pomelo-timeout -d 'Milliseconds that a call to the cluster may take' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l server-id -d 'The name of this server' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -l full -d 'Turn the route dictionary and protobuf on'
complete -c shaddock -n "__fish_shaddock_using_subcommand demo" -s h -l help -d 'Print help'
complete -c shaddock -n "__fish_shaddock_using_subcommand serve" -l config -d 'The configuration file; shaddock.example.toml has every key' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand serve" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand serve" -s h -l help -d 'Print help'
complete -c shaddock -n "__fish_shaddock_using_subcommand check" -l config -d 'The configuration file; shaddock.example.toml has every key' -r -F
complete -c shaddock -n "__fish_shaddock_using_subcommand check" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand check" -s h -l help -d 'Print help'
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l addr -d 'The server to load; several addresses, which connections take in turn, have more ports' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l transport -d 'Transport to connect by' -r -f -a "tcp\t''
ws\t''"
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
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l any-answer -d 'Take any answer; without it each has to be the request\'s own body'
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -l json -d 'Print the report as JSON'
complete -c shaddock -n "__fish_shaddock_using_subcommand load" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shaddock -n "__fish_shaddock_using_subcommand completions" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand completions" -s h -l help -d 'Print help'
complete -c shaddock -n "__fish_shaddock_using_subcommand man" -l log -d 'Level of the log on stderr: off, error, warn, info, debug or trace' -r
complete -c shaddock -n "__fish_shaddock_using_subcommand man" -s h -l help -d 'Print help'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and not __fish_seen_subcommand_from demo serve check load completions man help" -f -a "demo" -d 'Serve the demo app to any Pomelo client (the default)'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and not __fish_seen_subcommand_from demo serve check load completions man help" -f -a "serve" -d 'Serve as a configuration file says; SIGHUP reads it again'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and not __fish_seen_subcommand_from demo serve check load completions man help" -f -a "check" -d 'Tell what is wrong with a configuration file, without serving'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and not __fish_seen_subcommand_from demo serve check load completions man help" -f -a "load" -d 'Load any server that speaks Pomelo\'s protocol, and report throughput and latency'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and not __fish_seen_subcommand_from demo serve check load completions man help" -f -a "completions" -d 'Write the completions of a shell to stdout'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and not __fish_seen_subcommand_from demo serve check load completions man help" -f -a "man" -d 'Write the man pages into a folder'
complete -c shaddock -n "__fish_shaddock_using_subcommand help; and not __fish_seen_subcommand_from demo serve check load completions man help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
