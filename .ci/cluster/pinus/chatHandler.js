'use strict';
const told = (call) => new Promise((done, fail) => call((error, value) => (error ? fail(error) : done(value))));

class Handler {
  constructor(app) {
    this.app = app;
    this.channels = app.get('channelService');
    this.sessions = app.get('backendSessionService');
  }

  async echo(msg) {
    delete msg.__route__;
    return msg;
  }

  async login(msg, session) {
    await told((cb) => session.bind(msg.uid, cb));
    session.set('room', msg.room);
    await told((cb) => session.push('room', cb));
    this.channels.getChannel(msg.room, true).add(msg.uid, session.frontendId);
    return { code: 200, frontend: session.frontendId };
  }

  async room(msg, session) {
    return { uid: session.uid, room: session.get('room') };
  }

  async send(msg, session) {
    const channel = this.channels.getChannel(session.get('room'), false);
    await told((cb) => channel.pushMessage('onChat', { from: session.uid, msg: msg.msg }, {}, cb));
    return { code: 200 };
  }

  async shout(msg) {
    await told((cb) => this.channels.broadcast('connector', 'onShout', { msg: msg.msg }, {}, cb));
    return { code: 200 };
  }

  async kick(msg, session) {
    this.sessions.kickByUid(session.frontendId, msg.uid, 'bye', () => {});
    return { code: 200 };
  }
}

exports.default = (app) => new Handler(app);
