// A game on pinus, without a connector: the master and one backend, whose handlers use all that a
// backend may ask of a frontend.
'use strict';
require('reflect-metadata');
const { pinus } = require('pinus');

const app = pinus.createApp();
app.set('name', 'pinus');
app.start();
