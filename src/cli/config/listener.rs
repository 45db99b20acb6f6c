//! `[[listener]]`: where clients connect.

use shaddock::wire::pitaya::{Compression, Serializer};
use shaddock::{Builder, Dialect, Listener, TcpOptions, Tls};

use super::Section;
use super::kind::{DIALECT, DURATION, FLAG, HEADER, HOST_RULE, ORIGIN, SERIALIZER, TEXT, bytes};
use super::table::Table;

struct Listeners {
    all: Vec<Listener>,
}

/// The default address: nobody outside the machine gets in by accident.
const ADDRESS: &str = "127.0.0.1:3010";

pub(super) fn read(root: &mut Table<'_>, name: &'static str) -> Box<dyn Section> {
    let all = root.tables(name, |table| {
        let mut address = ADDRESS.to_owned();
        table.read("address", &mut address, TEXT);
        let listener = read_dialect(table, Listener::new(address));
        let listener = read_proxies(table, listener).origins(table.read_list("origins", ORIGIN));
        let listener = listener.tcp(table.table("tcp", read_tcp));
        match table.table("tls", read_tls) {
            Some(tls) => listener.tls(tls),
            None => listener,
        }
    });
    Box::new(Listeners { all })
}

fn read_dialect(table: &mut Table<'_>, listener: Listener) -> Listener {
    let (mut dialect, mut serializer) = ("pomelo".to_owned(), "json".to_owned());
    let mut compression = true;
    table.read("dialect", &mut dialect, DIALECT);
    table.read("serializer", &mut serializer, SERIALIZER);
    table.read("compression", &mut compression, FLAG);
    if dialect != "pitaya" {
        let needs = |value: &str| format!("{value}, where the dialect is not \"pitaya\"");
        if serializer != "json" {
            table.refuse("serializer", &needs("\"json\""), None);
        }
        if !compression {
            table.refuse("compression", &needs("true"), None);
        }
        return listener;
    }
    let serializer = match serializer.as_str() {
        "protobuf" => Serializer::Protobuf,
        _ => Serializer::Json,
    };
    let compression = if compression { Compression::On } else { Compression::Off };
    listener.dialect(Dialect::Pitaya).serializer(serializer).compression(compression)
}

fn read_proxies(table: &mut Table<'_>, mut listener: Listener) -> Listener {
    let proxies = table.read_list("trusted_proxies", HOST_RULE);
    let mut proxy_protocol = false;
    table.read("proxy_protocol", &mut proxy_protocol, FLAG);
    let header = table.read_some("real_ip_header", HEADER);
    if proxies.is_empty() {
        let needs = "the proxies' addresses, as nobody else may tell a client's";
        if proxy_protocol || header.is_some() {
            table.refuse("trusted_proxies", needs, None);
        }
    }
    if proxy_protocol {
        listener = listener.proxy_protocol();
    }
    if let Some(header) = header {
        listener = listener.real_ip_header(header);
    }
    listener.trusted_proxies(proxies)
}

fn read_tcp(table: &mut Table<'_>) -> TcpOptions {
    let mut thin = false;
    table.read("thin", &mut thin, FLAG);
    let mut options = TcpOptions::new().thin(thin);
    if let Some(timeout) = table.read_some("user_timeout", DURATION) {
        options = options.user_timeout(timeout);
    }
    if let Some(bytes) = table.read_some("notsent_lowat", bytes()) {
        options = options.notsent_lowat(bytes);
    }
    if let Some(time) = table.read_some("rto_min", DURATION) {
        options = options.rto_min(time);
    }
    if let Some(time) = table.read_some("rto_max", DURATION) {
        options = options.rto_max(time);
    }
    if let Some(name) = table.read_some("congestion", TEXT) {
        options = options.congestion(name);
    }
    options
}

fn read_tls(table: &mut Table<'_>) -> Option<Tls> {
    let (certificate, key) = (table.read_path("certificate"), table.read_path("key"));
    let expected = "files that can be read, with a certificate and its key in PEM";
    match (certificate, key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => match Tls::from_files(certificate, key) {
            Ok(tls) => Some(tls),
            Err(error) => {
                table.refuse("certificate", expected, Some(&error.to_string()));
                None
            }
        },
        (None, Some(_)) => {
            table.refuse("certificate", "a certificate, as there is a key", None);
            None
        }
        (Some(_), None) => {
            table.refuse("key", "the certificate's key", None);
            None
        }
    }
}

impl Section for Listeners {
    fn describe(&self, builder: Builder) -> Builder {
        self.all.iter().cloned().fold(builder, Builder::listen)
    }
}
