#include "bootstrap/token_rule.hpp"

#include "base/check.hpp"
#include "base/config.hpp"
#include "bootstrap/address.hpp"

namespace switchyard {

bool token_is_for_this_machine(CommunicatorOptions const& options) {
  return options.token.empty() || (options.derived_token && config_number(Setting::allow_default_token) == 0);
}

std::string text_of_missing_token(CommunicatorOptions const& options, std::string_view because) {
  constexpr std::string_view hint =
      ": set it to the output of one `openssl rand -hex 16` on all ranks, or, if everybody on this network is "
      "trusted, SWITCHYARD_ALLOW_DEFAULT_TOKEN=1";
  return fmt::format("{}: expected a secret that all ranks share, because {}; seen none{}",
                     options.derived_token ? "SWITCHYARD_TOKEN" : "token", because,
                     options.derived_token ? hint : "");
}

std::string where_to_listen(CommunicatorOptions const& options) {
  constexpr char const* loopback = "127.0.0.1";
  bool const stays_here = token_is_for_this_machine(options);
  std::string listen = config_text(Setting::listen);
  if (listen == info_of(Setting::listen).fallback)
    return stays_here ? loopback : own_address_of(parse_host_port(options.address, "address"));
  InetAddress const address = address_to_listen_on(listen, 0, info_of(Setting::listen).variable);
  require(!stays_here || address.is_loopback(), "{}",
          text_of_missing_token(options, fmt::format("the store listens on {} (SWITCHYARD_LISTEN), which other "
                                                     "machines may reach",
                                                     listen)));
  return listen;
}

}  // namespace switchyard
