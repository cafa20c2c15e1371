"""Who the caller is, as the server sees it."""

from watchbill import __version__
from watchbill.access.caller import Caller
from watchbill.access.roles import Permission
from watchbill.api.http.call import Call
from watchbill.api.http.reply import Answer, json_reply
from watchbill.responses.access import Me, ReadScope


async def get_me(call: Call) -> Answer:
    assert call.caller is not None, "the route lets nobody in without a login"
    return json_reply(me(call.caller))


def me(caller: Caller) -> Me:
    scope = caller.scope
    return Me(
        subject=caller.subject,
        name=caller.name,
        kind=caller.kind,
        tenant_id=caller.tenant_id,
        is_administrator=caller.is_administrator,
        permissions=tuple(sorted(one for one in Permission if caller.may(one))),
        scope=ReadScope(
            tenant=scope.is_whole_tenant,
            cluster_ids=tuple(sorted(scope.cluster_ids)),
            department_ids=tuple(str(one) for one in sorted(scope.department_ids)),
            project_ids=tuple(str(one) for one in sorted(scope.project_ids)),
        ),
        version=__version__,
    )


HANDLERS = (get_me,)
