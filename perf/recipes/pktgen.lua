-- UDP from many clients to the virtual server 10.1.0.100:80. The script `pktgen` beside it starts this; it sets the
-- variables that are read here.
package.path = package.path .. ";?.lua;test/?.lua;app/?.lua"
require "Pktgen"

local function setting(name)
    return tonumber(os.getenv("BATON_" .. name)) or error("BATON_" .. name .. " is not set")
end

local clients, servers = setting("CLIENT_PORT"), setting("SERVER_PORT")
local from, to = tostring(clients), tostring(servers)

-- All ranges of a packet count at once, so that as many combinations come as the lengths' least common multiple: 251 is
-- a prime, and the number of ports is none of its multiples.
local hosts = 251
local ports = math.max(1, math.ceil(setting("FLOWS") / hosts))
if ports % hosts == 0 then ports = ports + 1 end
assert(ports < 64000, "too many flows")

local function range(what, start, inc, min, max)
    for key, value in pairs({ start = start, inc = inc, min = min, max = max }) do
        pktgen.range[what](from, key, value)
    end
end

local function sorted(samples)
    table.sort(samples)
    return string.format("%.3f %.3f %.3f", samples[1], samples[math.ceil(#samples / 2)], samples[#samples])
end

pktgen.screen("off")
-- It answers for these two addresses: the clients' gateway and the one real server.
pktgen.set_ipaddr(from, "src", "10.1.0.1/24")
pktgen.set_ipaddr(from, "dst", "10.1.0.100")
pktgen.set_ipaddr(to, "src", "10.2.1.1/16")
pktgen.set_ipaddr(to, "dst", "10.2.0.1")
pktgen.process("all", "on")

-- The appliance's virtual address on the link: the last byte is failover.virtual_router_id, 51.
pktgen.range.dst_mac(from, "start", "00:00:5e:00:01:33")
pktgen.range.ip_proto(from, "udp")
range("src_ip", "10.64.0.0", "0.0.0.1", "10.64.0.0", "10.64.0." .. hosts - 1)
range("dst_ip", "10.1.0.100", "0.0.0.0", "10.1.0.100", "10.1.0.100")
range("src_port", 1024, 1, 1024, 1024 + ports - 1)
range("dst_port", 80, 0, 80, 80)
range("ttl", 64, 0, 64, 64)
range("pkt_size", setting("SIZE"), 0, setting("SIZE"), setting("SIZE"))
pktgen.set_range(from, "on")
pktgen.set(from, "rate", setting("RATE"))

pktgen.start(from)
-- Flows begin, neighbours are found.
pktgen.delay(3000)
local sent, came = {}, {}
for sample = 1, setting("TIME") do
    pktgen.delay(1000)
    local rates = pktgen.portStats("all", "rate")
    sent[sample] = rates[clients].pkts_tx / 1e6
    came[sample] = rates[servers].pkts_rx / 1e6
end
pktgen.stop(from)

print(string.format("pktgen: %d flows, %d bytes, %d %% of the link's speed", hosts * ports, setting("SIZE"), setting("RATE")))
print("                 min median max, Mpackets/s")
print("sent             " .. sorted(sent))
print("came through     " .. sorted(came))
pktgen.quit()
