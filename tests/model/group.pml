/* A group of members under crashes, pauses, lost and late frames, cuts and drifting clocks: who may send, and what
 * was promised to clients. README.md beside this file says what is modelled, what is not, and which rule is where. */
#include "state.pml"
#include "words.pml"
#include "membership.pml"
#include "member.pml"
#include "world.pml"
