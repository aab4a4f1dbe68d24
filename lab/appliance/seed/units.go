package seed

import (
	"fmt"
	"strings"
)

// units returns the files of systemd-networkd by name (systemd.network(5) and
// systemd.netdev(5)). Without links it takes DHCP on every Ethernet interface.
func units(links []Link) map[string]string {
	files := make(map[string]string)
	if len(links) == 0 {
		files["80-dhcp.network"] = "[Match]\nType=ether\nKind=!*\n\n[Link]\nRequiredForOnline=no\n\n[Network]\nDHCP=yes\n"
		return files
	}
	vlans := make(map[string][]string)
	for _, l := range links {
		if l.VLAN != 0 {
			vlans[l.Parent] = append(vlans[l.Parent], l.Name)
			files["10-"+l.Name+".netdev"] = fmt.Sprintf("[NetDev]\nName=%s\nKind=vlan\n\n[VLAN]\nId=%d\n", l.Name, l.VLAN)
		}
	}
	for _, l := range links {
		files["10-"+l.Name+".network"] = l.unit(vlans[l.Name])
	}
	return files
}

func (l *Link) unit(vlans []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[Match]\nName=%s\n", l.Name)
	if l.MAC != nil {
		// Should the NIC not be there, no other gets its addresses.
		fmt.Fprintf(&b, "MACAddress=%s\n", l.MAC)
	}
	if l.MTU != 0 {
		fmt.Fprintf(&b, "\n[Link]\nMTUBytes=%d\n", l.MTU)
	}
	dhcp := map[[2]bool]string{{true, true}: "yes", {true, false}: "ipv4", {false, true}: "ipv6", {false, false}: "no"}
	fmt.Fprintf(&b, "\n[Network]\nDHCP=%s\nIPv6AcceptRA=%t\n", dhcp[[2]bool{l.DHCP4, l.DHCP6}], l.AcceptRA)
	// Whoever loses the link keeps addresses: weir's VIPs hang on the same cable.
	fmt.Fprint(&b, "ConfigureWithoutCarrier=yes\n")
	for _, a := range l.Addresses {
		fmt.Fprintf(&b, "Address=%s\n", a)
	}
	for _, a := range l.DNS {
		fmt.Fprintf(&b, "DNS=%s\n", a)
	}
	if len(l.Search) > 0 {
		fmt.Fprintf(&b, "Domains=%s\n", strings.Join(l.Search, " "))
	}
	for _, name := range vlans {
		fmt.Fprintf(&b, "VLAN=%s\n", name)
	}
	for _, r := range l.Routes {
		fmt.Fprintf(&b, "\n[Route]\nDestination=%s\n", r.To)
		if r.Via.IsValid() {
			fmt.Fprintf(&b, "Gateway=%s\n", r.Via)
		}
		if r.OnLink {
			fmt.Fprint(&b, "GatewayOnLink=yes\n")
		}
		if r.Metric != 0 {
			fmt.Fprintf(&b, "Metric=%d\n", r.Metric)
		}
	}
	return b.String()
}
